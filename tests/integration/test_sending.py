"""What is sent on real sockets: it arrives whole, in order, as it was when it was sent, and by few system calls.

How often and when exactly is tests/unit/test_writer.py; what is published is test_topics.py, who does not read is
test_backpressure.py.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import ssl as tls
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

import wsev
from tests.conftest import Connect, Raw, Serve
from tests.peer import BINARY, TEXT, Peer, encode_frame

Server = wsev.Server[Any]
Conn = wsev.Connection[Any]

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: TCP_INFO counts segments")


class Place(NamedTuple):
    """Where a server listens, and how its clients come."""

    listening: dict[str, Any]
    client: dict[str, Any]


@pytest.fixture(scope="module")
def contexts() -> tuple[tls.SSLContext, tls.SSLContext]:
    """The server's and the client's."""
    authority = trustme.CA()
    ours = tls.SSLContext(tls.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(ours)
    theirs = tls.create_default_context()
    authority.configure_trust(theirs)
    return ours, theirs


@pytest.fixture(params=["TCP", "Unix", "TLS", "TLS on Unix"])
def place(request: pytest.FixtureRequest, tmp_path: Path, contexts: tuple[tls.SSLContext, tls.SSLContext]) -> Place:
    ours, theirs = contexts
    listening = {"unix": tmp_path / "socket"} if "Unix" in request.param else {}
    return Place(listening | {"ssl": ours}, {"ssl": theirs}) if "TLS" in request.param else Place(listening, {})


async def opened(raw: Raw, server: Server, **options: Any) -> tuple[Peer, Conn]:
    """A raw client and its connection."""
    before = set(server.connections)
    peer = await raw(server, **options)
    await peer.upgrade()
    await peer.fence()
    (conn,) = set(server.connections) - before
    return peer, conn


def limit_send_buffer(conn: Conn) -> None:
    """From now on its socket takes a part of whatever it is given."""
    conn.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


def segments(peer: Peer) -> int:
    """TCP segments with data that came so far: one for each system call of the server, which has Nagle's delay off."""
    info = peer.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
    (count,) = struct.unpack_from("I", info, 152)  # tcpi_data_segs_in of linux/tcp.h
    assert isinstance(count, int)
    return count


# What arrives


SIZES = [0, 1, 125, 126, 16_369, 16_370, 16_371, 16_384, 65_535, 65_536, 1_000_000]  # of frames, and of write buffers


async def test_a_message_of_each_size_arrives_as_it_was_sent(serve: Serve, connect: Connect) -> None:
    server: Server = wsev.Server()

    @server.on_message
    def said(conn: Conn, message: str | bytes) -> None:
        for size in SIZES:
            assert conn.send(b"\xff" * size)
            assert conn.send("x" * size)
            assert conn.send("ü" * (size // 2))

    client = await connect(await serve(server), max_size=None)
    await client.send("go")
    for size in SIZES:
        assert await client.recv() == b"\xff" * size
        assert await client.recv() == "x" * size
        assert await client.recv() == "ü" * (size // 2)


SENT: dict[str, tuple[Callable[[Conn], bool], str | bytes]] = {
    "str": (lambda conn: conn.send("grün"), "grün"),
    "str of any plane": (lambda conn: conn.send("\0\u07ff\uffff\U0010ffff"), "\0\u07ff\uffff\U0010ffff"),
    "bytes": (lambda conn: conn.send(b"\xff"), b"\xff"),
    "bytes as text": (lambda conn: conn.send("grün".encode(), text=True), "grün"),
    "bytearray": (lambda conn: conn.send(bytearray(b"\xff")), b"\xff"),
    "bytearray as text": (lambda conn: conn.send(bytearray(b"text"), text=True), "text"),
    "memoryview": (lambda conn: conn.send(memoryview(b"--\xff--")[2:-2]), b"\xff"),
    "memoryview as text": (lambda conn: conn.send(memoryview(b"--text--")[2:-2], text=True), "text"),
    "empty str": (lambda conn: conn.send(""), ""),
    "empty bytes": (lambda conn: conn.send(b""), b""),
    "empty bytes as text": (lambda conn: conn.send(b"", text=True), ""),
    "with compress": (lambda conn: conn.send("m" * 1000, compress=True), "m" * 1000),
}


@pytest.mark.parametrize("send, received", SENT.values(), ids=SENT)
async def test_str_is_text_and_bytes_are_binary_but_where_they_are_said_to_be_text(
    serve: Serve, connect: Connect, send: Callable[[Conn], bool], received: str | bytes
) -> None:
    server = await serve(wsev.Server[Any]())
    client = await connect(server)
    (conn,) = server.connections
    assert send(conn) is True
    message = await client.recv()
    assert (type(message), message) == (type(received), received)


@pytest.mark.slow
async def test_a_large_message_goes_both_ways_whole(serve: Serve, connect: Connect, place: Place) -> None:
    server: Server = wsev.Server(max_message_size=None)
    server.on_message(lambda conn, message: conn.send(message))
    client = await connect(await serve(server, **place.listening), max_size=None, **place.client)
    chance = random.Random(1)
    for size in (100_000, 5_000_000):
        message = chance.randbytes(size)
        await client.send(message)
        assert await client.recv() == message
    await client.send("large " * 500_000)
    assert await client.recv() == "large " * 500_000


@pytest.mark.slow
async def test_many_messages_of_all_sizes_reach_a_slow_reader_whole_in_order_and_as_they_were(
    serve: Serve, raw: Raw, place: Place
) -> None:
    server = await serve(wsev.Server[Any](max_buffered_amount=None), **place.listening)
    peer, conn = await opened(raw, server, receive_buffer=4096, **place.client)
    limit_send_buffer(conn)
    chance = random.Random(2)
    sizes = [chance.choice([0, 5, 126, 1000, 16_000, 17_000, 40_000, 65_536]) for _ in range(200)]
    messages = [b"%03d" % number * (size // 3) for number, size in enumerate(sizes)]
    peer.pause()
    for message in messages:
        buffer = bytearray(message)
        assert conn.send(buffer if chance.random() < 0.5 else message)
        buffer[:] = b"?" * len(buffer)
    await asyncio.sleep(0)
    assert conn.buffered_amount > 64 * 65_536 / 2  # hundreds of parts, some of which are with the kernel
    peer.resume()
    for message in messages:
        await peer.expect_frame(BINARY, message)
    assert await peer.fence() == []


@pytest.mark.slow
async def test_buffered_amount_rises_with_what_is_sent_and_falls_to_0_when_it_has_been_read(
    serve: Serve, raw: Raw, place: Place
) -> None:
    server = await serve(wsev.Server[Any](max_buffered_amount=None), **place.listening)
    peer, conn = await opened(raw, server, receive_buffer=4096, **place.client)
    assert conn.buffered_amount == 0
    conn.send(b"m")
    assert conn.buffered_amount == 3
    conn.flush()
    assert conn.buffered_amount == 0
    limit_send_buffer(conn)
    peer.pause()
    amounts = [0]
    for _ in range(5):
        conn.send(bytes(500_000))
        await asyncio.sleep(0)
        amounts.append(conn.buffered_amount)
    assert amounts[-1] > 1_000_000  # the kernel took some
    assert all(0 <= later - earlier < 505_000 for earlier, later in itertools.pairwise(amounts))
    peer.resume()
    assert len(await peer.fence()) == 6
    assert conn.buffered_amount == 0


# How few system calls


@linux
async def test_an_echo_of_sixteen_messages_that_came_together_is_one_system_call(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    server.on_message(lambda conn, message: conn.send(message))
    peer, _ = await opened(raw, await serve(server))
    before = segments(peer)
    await peer.send(encode_frame(TEXT, b"m") * 16)
    for _ in range(16):
        await peer.expect_frame(TEXT, b"m")
    assert segments(peer) - before == 1


@linux
async def test_what_is_sent_from_elsewhere_is_one_system_call_within_one_turn_of_the_loop(
    serve: Serve, raw: Raw
) -> None:
    server = await serve(wsev.Server[Any]())
    peer, conn = await opened(raw, server)
    before = segments(peer)
    for _ in range(10):
        conn.send("m")
    assert conn.buffered_amount == 10 * 3
    await asyncio.sleep(0)
    assert conn.buffered_amount == 0
    for _ in range(10):
        await peer.expect_frame(TEXT, b"m")
    assert segments(peer) - before == 1


@linux
@pytest.mark.parametrize("deadline", [0.0, 0.01], ids="write_buffer_deadline={}".format)
async def test_all_that_one_turn_of_the_loop_sends_to_many_is_one_system_call_for_each(
    serve: Serve, raw: Raw, deadline: float
) -> None:
    server: Server = wsev.Server(write_buffer_deadline=deadline)

    @server.on_message
    def said(conn: Conn, message: str | bytes) -> None:
        for _ in range(5):
            server.publish("room", message)
            server.broadcast(message)
            wsev.broadcast(server.connections, message)
            conn.publish("room", message)
            for each in server.connections:
                each.send(message)

    await serve(server)
    peers = [await opened(raw, server) for _ in range(5)]
    for _, conn in peers:
        conn.subscribe("room")
    before = [segments(peer) for peer, _ in peers]
    await peers[0][0].send_frame(TEXT, b"m")
    for peer, _ in peers:
        for _ in range(20 if peer is peers[0][0] else 25):
            await peer.expect_frame(TEXT, b"m")
    assert [segments(peer) for peer, _ in peers] == [count + 1 for count in before]
