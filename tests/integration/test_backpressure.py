"""Backpressure: a peer that does not read is not read from, is told of, and slows nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import wsev
from tests.conftest import Raw, Serve
from tests.gate import Gate
from tests.peer import BINARY, CLOSE, TEXT, Peer, encode_frame

Server = wsev.Server[Any]
Conn = wsev.Connection[Any]
Give = Callable[[bytes], bool]

pytestmark = pytest.mark.slow  # megabytes through small buffers

MUCH = b"\0" * 8_000_000  # more than the buffers of a loopback connection take
NARROW = 8192  # what the kernel holds for one direction of one end


def narrow_listener() -> socket.socket:
    """A bound socket whose connections have narrow buffers."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NARROW)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
    sock.bind(("127.0.0.1", 0))
    return sock


async def connected(server: Server, raw: Raw) -> tuple[Peer, Conn, Peer]:
    """A peer with narrow buffers, its connection, and another peer for fences."""
    peer = await raw(server, receive_buffer=NARROW, send_buffer=NARROW)
    await peer.upgrade()
    await peer.fence()
    (conn,) = server.connections
    other = await raw(server)
    await other.upgrade("/other")
    return peer, conn, other


@contextlib.contextmanager
def bare(peer: Peer) -> Iterator[socket.socket]:
    """The peer's socket, to be read and written in so many bytes; its transport is paused."""
    peer.pause()
    with socket.socket(fileno=os.dup(peer.socket.fileno())) as sock:
        yield sock
    peer.resume()


async def send_until_stuck(server: Server, sock: socket.socket, data: bytes, other: Peer) -> int:
    """Send until the server, though it had its turn, reads no more of it; returns how much was sent."""
    sent = 0
    while sent < len(data):
        try:
            sent += sock.send(data[sent:])
        except BlockingIOError:
            before = server.stats().bytes_in
            await other.fence()
            if server.stats().bytes_in - before < 100:  # the fence itself
                break
    return sent


def numbered(number: int, size: int = 1000) -> bytes:
    return struct.pack("!I", number) * (size // 4)


def giving(how: str, server: Server, conn: Conn) -> Give:
    """`conn.send`, or a publish to it alone; either says whether it was taken."""
    if how == "send":
        return conn.send
    conn.subscribe("room")
    return lambda message: server.publish("room", message) == 1


HOW = pytest.mark.parametrize("how", ["send", "publish"])

# Reading pauses.


@pytest.mark.parametrize(
    ("options", "waiting"),
    [
        pytest.param({"max_queue": 5}, 5, id="max_queue"),
        pytest.param({"max_queue": None, "max_message_size": 8000}, 8, id="max_message_size bytes"),
    ],
)
async def test_behind_a_full_queue_the_peer_cannot_send_and_goes_on_when_there_is_room(
    serve: Serve, raw: Raw, options: Any, waiting: int
) -> None:
    server: Server = wsev.Server(read_buffer_size=4096, **options)
    gate = Gate()
    server.on_message(gate)
    await serve(server, sock=narrow_listener())
    peer, _, other = await connected(server, raw)
    messages = [numbered(number) for number in range(200)]
    frames = b"".join(encode_frame(BINARY, message) for message in messages)
    with bare(peer) as sock:
        before = server.stats()
        sent = await send_until_stuck(server, sock, frames, other)
        assert sent < len(frames)
        assert gate.begun == messages[:1]
        assert server.stats().messages_in - before.messages_in == 1 + waiting
    gate.open()
    sending = asyncio.ensure_future(peer.send(frames[sent:]))
    for message in messages:
        await peer.expect_frame(BINARY, message)
    await sending
    assert gate.ended == messages


async def test_an_echo_that_is_not_read_stays_bounded_and_goes_on_when_it_is(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server(high_water=40_000, write_buffer_size=4096, read_buffer_size=4096)
    server.on_message(lambda conn, message: conn.send(message))
    await serve(server, sock=narrow_listener())
    peer, conn, other = await connected(server, raw)
    messages = [numbered(number) for number in range(1000)]
    frames = b"".join(encode_frame(BINARY, message) for message in messages)
    with bare(peer) as sock:
        sent = await send_until_stuck(server, sock, frames, other)
        assert sent < len(frames)
        # The message that passed high_water, and what the same read event brought before it was seen.
        assert 40_000 < conn.buffered_amount <= 40_000 + 1004 + 4096
    sending = asyncio.ensure_future(peer.send(frames[sent:]))
    for message in messages:
        await peer.expect_frame(BINARY, message)
    await sending


# High water, and its quarter.


async def test_drain_waits_until_the_peer_reads_and_on_drain_comes_once(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    log: list[str] = []
    drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @server.on_message
    async def said(conn: Conn, message: Any) -> None:
        assert conn.send(MUCH)
        log.append("sent")
        await conn.drain()
        log.append(f"drained {conn.buffered_amount <= 16384}")
        drained.set_result(None)

    server.on_drain(lambda conn: log.append("on_drain"))
    await serve(server)
    peer, other = await raw(server, receive_buffer=4096), await raw(server)
    await peer.upgrade()
    await other.upgrade()
    peer.pause()
    await peer.send_frame(TEXT, b"m")
    assert await other.fence() == []
    assert log == ["sent"]
    peer.resume()
    assert await peer.read_frame() == (True, BINARY, MUCH)
    await drained
    assert await peer.fence() == []
    assert log == ["sent", "drained True", "on_drain"]


async def test_above_high_water_a_connection_is_not_read_from(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    log: list[Any] = []

    @server.on_message
    def said(conn: Conn, message: Any) -> None:
        log.append(message)
        if message == "much":
            conn.send(MUCH)

    await serve(server)
    peer, other = await raw(server, receive_buffer=4096), await raw(server)
    await peer.upgrade()
    await other.upgrade()
    peer.pause()
    await peer.send_frame(TEXT, b"much")
    await other.fence()
    await peer.send_frame(TEXT, b"after it")
    assert await other.fence() == []
    assert log == ["much"]
    peer.resume()
    assert await peer.fence() == [(True, BINARY, MUCH)]
    assert log == ["much", "after it"]


async def test_drain_and_on_drain_come_once_and_not_before_a_quarter_is_left(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server(high_water=40_000, write_buffer_size=4096)
    log: list[tuple[str | bytes, int]] = []
    server.on_drain(lambda conn: log.append(("on_drain", conn.buffered_amount)))
    server.on_message(lambda conn, message: log.append((message, conn.buffered_amount)))
    await serve(server, sock=narrow_listener())
    peer, conn, other = await connected(server, raw)

    async def drain() -> None:
        await conn.drain()
        log.append(("drain", conn.buffered_amount))

    for round_ in range(2):
        messages = [numbered(number) for number in range(100)]
        wire = b"".join(encode_frame(BINARY, message, masked=False) for message in messages)
        with bare(peer) as sock:
            assert all(conn.send(message) for message in messages)
            draining = [asyncio.ensure_future(drain()) for _ in range(2)]
            await other.fence()
            sock.sendall(encode_frame(TEXT, b"after it"))
            while wire:
                received = await asyncio.get_running_loop().sock_recv(sock, 1000)
                assert wire.startswith(received)
                wire = wire[len(received) :]
                await other.fence()
                assert not log or conn.buffered_amount <= 10_000
        await asyncio.gather(*draining)
        assert await peer.fence() == []
        assert sorted(str(name) for name, amount in log) == ["after it", "drain", "drain", "on_drain"], round_
        log.clear()


async def test_below_high_water_drain_does_not_wait_and_on_drain_does_not_come(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server(high_water=40_000, write_buffer_size=4096)
    log: list[str] = []
    server.on_drain(lambda conn: log.append("on_drain"))
    server.on_message(lambda conn, message: log.append("read"))
    await serve(server, sock=narrow_listener())
    peer, conn, other = await connected(server, raw)
    peer.pause()
    number = 0
    while conn.buffered_amount <= 20_000:
        assert conn.send(numbered(number))
        number += 1
        await other.fence()
    await conn.drain()
    await peer.send_frame(TEXT, b"read")
    await other.fence()
    assert log == ["read"]
    peer.resume()
    assert [frame.payload for frame in await peer.fence()] == [numbered(each) for each in range(number)]
    assert log == ["read"]


# max_buffered_amount.


@HOW
async def test_a_message_is_taken_whatever_its_size_while_less_than_max_buffered_amount_is_unsent(
    serve: Serve, raw: Raw, how: str
) -> None:
    chance = random.Random(7)
    server: Server = wsev.Server(max_buffered_amount=50_000, slow_consumer="drop")
    await serve(server, sock=narrow_listener())
    peer, conn, other = await connected(server, raw)
    give = giving(how, server, conn)
    taken: list[bytes] = []
    refused = 0
    for number in range(200):
        if number % 20 == 0:
            peer.resume()
            assert [frame.payload for frame in await peer.fence()] == taken
            taken.clear()
            peer.pause()
        message = numbered(number, chance.choice((4, 400, 4000, 40_000, 400_000)))
        conn.flush()  # what the kernel takes is not unsent
        before = conn.buffered_amount
        is_taken = give(message)
        assert is_taken is (before < 50_000), (before, len(message))
        if is_taken:
            taken.append(message)
        else:
            refused += 1
        if chance.random() < 0.5:
            await other.fence()
    assert refused > 10
    assert server.stats().dropped == refused
    peer.resume()
    assert [frame.payload for frame in await peer.fence()] == taken


@HOW
async def test_drop_counts_what_it_refuses_and_keeps_the_order_of_the_rest(serve: Serve, raw: Raw, how: str) -> None:
    server: Server = wsev.Server(max_buffered_amount=20_000, slow_consumer="drop", write_buffer_size=4096)
    await serve(server, sock=narrow_listener())
    peer, conn, other = await connected(server, raw)
    give = giving(how, server, conn)
    taken: list[bytes] = []
    received: list[bytes] = []
    for number in range(400):
        if number % 100 == 0:
            peer.pause()
        if give(numbered(number)):
            taken.append(numbered(number))
        if number % 10 == 0:
            await other.fence()
        if number % 100 == 99:
            peer.resume()
            received += [(await peer.read_frame()).payload for _ in range(5)]  # and slow again, before all is read
    received += [frame.payload for frame in await peer.fence()]
    assert received == taken
    assert conn.is_open
    assert server.stats().dropped == 400 - len(taken) > 100


@pytest.mark.parametrize("size", [400, 4000, 30_000])
@HOW
async def test_a_slow_consumer_that_reads_late_finds_whole_messages_and_then_close_1013(
    serve: Serve, raw: Raw, how: str, size: int
) -> None:
    server: Server = wsev.Server(max_buffered_amount=50_000)
    reasons: asyncio.Queue[Any] = asyncio.Queue()
    server.on_disconnect(lambda conn, error: reasons.put_nowait(error))
    await serve(server, sock=narrow_listener())
    peer, conn, other = await connected(server, raw)
    give = giving(how, server, conn)
    peer.pause()
    taken = 0
    while give(numbered(taken, size)):
        taken += 1
        await other.fence()
    assert not conn.is_open
    assert not conn.send(b"too late")
    peer.resume()
    whole = 0
    while (frame := await peer.read_frame()).opcode == BINARY:
        assert frame.payload == numbered(whole, size)
        whole += 1
    assert frame == (True, CLOSE, struct.pack("!H", 1013))
    await peer.read_eof()
    assert 0 < whole < taken
    await peer.close()
    error = await reasons.get()
    assert isinstance(error, wsev.SlowConsumer)
    assert conn.close_code == 1013


@pytest.mark.parametrize("slow_consumer", ["close", "drop"])
async def test_slow_consumers_slow_nobody_else(serve: Serve, raw: Raw, slow_consumer: Any) -> None:
    server: Server = wsev.Server(max_buffered_amount=20_000, slow_consumer=slow_consumer)
    server.on_connect(lambda conn: conn.subscribe("room"))
    await serve(server, sock=narrow_listener())
    slow = [await raw(server, receive_buffer=NARROW) for _ in range(5)]
    others = [await raw(server) for _ in range(5)]
    for peer in slow + others:
        await peer.upgrade()
        assert await peer.fence() == []
    for peer in slow:
        peer.pause()
    for number in range(300):
        server.publish("room", numbered(number))
        for peer in others:
            await peer.expect_frame(BINARY, numbered(number))  # before the next is published
    for peer in slow:
        peer.resume()
        assert await peer.read_frame() == (True, BINARY, numbered(0))


@HOW
async def test_a_slow_consumer_is_closed_and_the_others_get_everything(serve: Serve, raw: Raw, how: str) -> None:
    server: Server = wsev.Server(max_buffered_amount=1_000_000)
    reasons: list[Any] = []
    server.on_connect(lambda conn: conn.subscribe("room"))
    server.on_disconnect(lambda conn, error: reasons.append(type(error)))
    await serve(server)
    slow, other = await raw(server, receive_buffer=4096), await raw(server)
    await slow.upgrade()
    await slow.fence()
    (conn,) = server.connections
    await other.upgrade()
    await other.fence()
    slow.pause()
    taken = []
    for number in range(3):
        taken.append(conn.send(MUCH) if how == "send" else server.publish("room", MUCH if number == 0 else b"small"))
        await other.fence()
    assert taken == ([True, False, False] if how == "send" else [2, 1, 1])
    assert not conn.is_open
    slow.reset()
    await conn.wait_closed()
    assert reasons == [wsev.SlowConsumer]
    assert server.stats().limits == {"max_buffered_amount": 1}


async def test_drop_refuses_messages_and_the_connection_lives(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server(max_buffered_amount=1_000_000, slow_consumer="drop")
    await serve(server)
    slow, other = await raw(server, receive_buffer=4096), await raw(server)
    await slow.upgrade()
    await slow.fence()
    (conn,) = server.connections
    await other.upgrade()
    slow.pause()
    assert conn.send(MUCH)
    await other.fence()
    assert (conn.send("refused"), conn.send("too"), conn.is_open) == (False, False, True)
    assert server.stats().dropped == 2
    slow.resume()
    assert await slow.fence() == [(True, BINARY, MUCH)]
    assert conn.send("taken")
    assert await slow.fence() == [(True, TEXT, b"taken")]


async def test_a_slow_but_honest_reader_gets_every_byte_in_order(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()

    @server.on_message
    async def said(conn: Conn, message: Any) -> None:
        for number in range(200):
            assert conn.send(b"%03d" % number * 10_000)
            await conn.drain()
        conn.close()

    peer = await raw(await serve(server), receive_buffer=4096)
    await peer.upgrade()
    await peer.send_frame(TEXT, b"go")
    for number in range(200):
        assert await peer.read_frame() == (True, BINARY, b"%03d" % number * 10_000)
    assert (await peer.read_frame()).opcode == CLOSE
    await peer.send_close()
    await peer.read_eof()
