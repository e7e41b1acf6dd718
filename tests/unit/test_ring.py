"""Ring: the sends of many connections in one system call, as the connections and their peers see it."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import sys
from typing import Any

import pytest

import wsev
from tests.apart import run_apart
from tests.conftest import Raw, Serve
from tests.peer import BINARY, CLOSE, TEXT, Peer, encode_frame

if sys.platform == "linux":
    from wsev._core.ring import Ring

    has_ring = Ring.open() is not None
else:
    has_ring = False

pytestmark = pytest.mark.skipif(
    not has_ring,
    reason="needs io_uring: Linux 5.18 or later, and a sandbox that allows it (sysctl kernel.io_uring_disabled=0)",
)

Server = wsev.Server[Any]

MANY = 300  # more than one batch takes
SOME = 6


@pytest.fixture(autouse=True)
def _no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSEV_TRANSPORT", raising=False)


async def gathered(server: Server, raw: Raw, size: int, **how: Any) -> list[Peer]:
    """Peers whose connections are all in the topic "room"."""
    peers = [await raw(server, **how) for _ in range(size)]
    for peer in peers:
        await peer.upgrade()
        assert await peer.fence() == []
    return peers


def room(**options: Any) -> Server:
    server: Server = wsev.Server(**options)
    server.on_connect(lambda conn: conn.subscribe("room"))
    return server


async def test_a_publish_leaves_in_batches_and_reaches_everyone_once(serve: Serve, raw: Raw) -> None:
    server = await serve(room())
    peers = await gathered(server, raw, MANY)
    sent = server.stats().bytes_out
    assert server.publish("room", "news") == MANY
    for peer in peers:
        await peer.expect_frame(TEXT, b"news")
    assert server.stats().batched_sends == MANY
    assert server.stats().bytes_out == sent + MANY * len(encode_frame(TEXT, b"news", masked=False))
    for peer in peers:
        assert await peer.fence() == []


async def test_answers_of_one_wake_up_leave_together_and_in_order(serve: Serve, raw: Raw) -> None:
    server = room()
    server.on_message(lambda conn, message: conn.send(message))
    await serve(server)
    peers = await gathered(server, raw, SOME)
    for number in range(3):
        frames = b"".join(encode_frame(BINARY, bytes([number, each])) for each in range(4))
        await asyncio.gather(*(peer.send(frames) for peer in peers))  # in one turn: one wake-up finds them all
        for peer in peers:
            for each in range(4):
                await peer.expect_frame(BINARY, bytes([number, each]))
    assert server.stats().batched_sends == 3 * SOME


@pytest.mark.parametrize("transport", ["epoll", "loop"])
async def test_without_it_every_send_is_by_itself(serve: Serve, raw: Raw, transport: Any) -> None:
    server = await serve(room(transport=transport))
    peers = await gathered(server, raw, SOME)
    server.publish("room", "news")
    for peer in peers:
        await peer.expect_frame(TEXT, b"news")
    assert server.stats().batched_sends == 0


async def test_few_sends_are_made_by_themselves(serve: Serve, raw: Raw) -> None:
    server = await serve(room())
    peers = await gathered(server, raw, 2)
    server.publish("room", "news")
    for peer in peers:
        await peer.expect_frame(TEXT, b"news")
    assert server.stats().batched_sends == 0


@pytest.mark.parametrize("size", [10, 16_384, 100_000], ids=["copied", "just referred to", "referred to"])
@pytest.mark.parametrize("count", [1, 2, 9])
async def test_messages_of_every_size_arrive_whole_and_in_order(serve: Serve, raw: Raw, size: int, count: int) -> None:
    server = await serve(room(max_buffered_amount=None))
    peers = await gathered(server, raw, SOME)
    messages = [bytes([number]) * size for number in range(count)]
    for message in messages:
        server.publish("room", message)
    for peer in peers:
        for message in messages:
            await peer.expect_frame(BINARY, message)
        assert await peer.fence() == []


@pytest.mark.slow
async def test_what_the_kernel_took_in_part_goes_on_where_it_stopped(serve: Serve, raw: Raw) -> None:
    server = await serve(room(max_buffered_amount=None))
    peers = await gathered(server, raw, SOME, receive_buffer=4096)
    messages = [os.urandom(3_000_000), b"behind it"]
    server.publish("room", messages[0])
    await asyncio.sleep(0)
    assert server.stats().batched_sends == SOME
    assert 0 < server.stats().unsent < SOME * 3_000_000
    server.publish("room", messages[1])
    await asyncio.gather(*(receive_all(peer, messages) for peer in peers))
    assert server.stats().unsent == 0


async def receive_all(peer: Peer, messages: list[bytes]) -> None:
    for message in messages:
        await peer.expect_frame(BINARY, message)
    assert await peer.fence() == []


async def test_a_peer_that_is_gone_ends_alone(serve: Serve, raw: Raw) -> None:
    server = room()
    ends: list[Any] = []
    server.on_disconnect(lambda conn, error: ends.append(type(error)))
    await serve(server)
    gone, *others = await gathered(server, raw, SOME)
    first = next(iter(server.connections))
    gone.reset()
    server.publish("room", "one")
    server.publish("room", "two")
    for peer in others:
        await peer.expect_frame(TEXT, b"one")
        await peer.expect_frame(TEXT, b"two")
        assert await peer.fence() == []
    await first.wait_closed()
    assert len(ends) == 1


async def test_a_connection_that_closes_behind_a_message_sends_both(serve: Serve, raw: Raw) -> None:
    server = await serve(room())
    peers = await gathered(server, raw, SOME)
    server.publish("room", "last")
    for conn in server.connections:
        conn.close(3000)
    for peer in peers:
        await peer.expect_frame(TEXT, b"last")
        await peer.expect_frame(CLOSE, b"\x0b\xb8")


def open_without_descriptors() -> None:
    taken = [socket.socket()]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for more in range(4):
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0].fileno() + 1 + more, hard))
        ring = Ring.open()
        assert (ring is not None) == (more == 3), more  # its own descriptor, and two to try it with


@pytest.mark.slow
def test_where_it_cannot_be_had_there_is_none_and_no_error() -> None:
    run_apart(open_without_descriptors)
