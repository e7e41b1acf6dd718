"""Timeouts on real sockets: what happens, and in which order; how long each takes is a unit test of the wheel."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import wsev
from tests.conftest import Raw, Serve
from tests.peer import PING, PONG, TEXT, Peer, encode_frame

Server = wsev.Server[Any]
Conn = wsev.Connection[Any]

pytestmark = pytest.mark.slow  # each waits for a real clock

MUCH = b"\0" * 8_000_000  # more than the buffers of a loopback connection take


async def watched(serve: Serve, **options: Any) -> tuple[Server, asyncio.Queue[BaseException | None]]:
    """A server that sends much when it is asked to, and the errors of its connections' ends."""
    server: Server = wsev.Server(**options)
    ends: asyncio.Queue[BaseException | None] = asyncio.Queue()

    @server.on_message
    def said(conn: Conn, message: Any) -> None:
        if message == "much":
            conn.send(MUCH)

    server.on_disconnect(lambda conn, error: ends.put_nowait(error))
    return await serve(server), ends


async def end_of(ends: asyncio.Queue[BaseException | None], kind: str) -> None:
    error = await ends.get()
    assert isinstance(error, wsev.TimedOut)
    assert error.kind == kind


async def opened(raw: Raw, server: Server, **sizes: Any) -> Peer:
    peer = await raw(server, **sizes)
    await peer.upgrade()
    return peer


async def test_a_silent_peer_is_pinged_and_then_closed_with_1011(serve: Serve, raw: Raw) -> None:
    server, ends = await watched(serve, idle_timeout=0.2)
    peer = await opened(raw, server)
    frame = await peer.read_frame()
    assert frame[:2] == (True, PING)
    await peer.expect_close(1011)
    await peer.close()
    await end_of(ends, "idle")
    assert server.stats().limits == {"idle_timeout": 1}


async def test_a_peer_that_answers_pings_stays_and_its_latency_is_known(serve: Serve, raw: Raw) -> None:
    server, ends = await watched(serve, idle_timeout=0.4)
    peer = await opened(raw, server)
    for _ in range(4):
        frame = await peer.read_frame()
        assert frame[:2] == (True, PING)
        await peer.send_frame(PONG, frame[2])
    await peer.fence()
    assert ends.empty()
    [conn] = server.connections
    assert conn.latency is not None


async def test_a_message_that_does_not_end_is_closed_with_1008_whatever_control_frames_come(
    serve: Serve, raw: Raw
) -> None:
    server, ends = await watched(serve, read_deadline=0.2)
    peer = await opened(raw, server)
    # In one write: a machine that pauses between two of them may be too late for the second.
    await peer.send(encode_frame(TEXT, b"a", fin=False) + encode_frame(PING, b"in time"))
    await peer.expect_frame(PONG, b"in time")
    await peer.expect_close(1008)
    await peer.close()
    await end_of(ends, "read")


async def test_a_peer_that_takes_no_output_is_dropped(serve: Serve, raw: Raw) -> None:
    server, ends = await watched(serve, write_timeout=0.2)
    peer = await opened(raw, server, receive_buffer=4096)
    peer.pause()
    await peer.send_frame(TEXT, b"much")
    await end_of(ends, "write")


async def test_a_peer_that_reads_nothing_is_dropped_as_idle_though_output_is_stuck(serve: Serve, raw: Raw) -> None:
    server, ends = await watched(serve, idle_timeout=0.2)
    peer = await opened(raw, server, receive_buffer=4096)
    peer.pause()
    await peer.send_frame(TEXT, b"much")
    await end_of(ends, "idle")


async def test_a_peer_that_does_not_answer_our_close_is_ended(serve: Serve, raw: Raw) -> None:
    server, ends = await watched(serve, close_timeout=0.2)
    await opened(raw, server)
    [conn] = server.connections
    conn.close(1000)
    await end_of(ends, "close")


async def test_a_callback_that_never_returns_counts_for_no_timeout(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server(idle_timeout=0.2, max_queue=1)
    gate = asyncio.Event()

    @server.on_message
    async def said(conn: Conn, message: Any) -> None:
        await gate.wait()
        conn.send(message)

    await serve(server)
    peer, silent = await opened(raw, server), await opened(raw, server)
    for word in (b"one", b"two", b"three"):
        await peer.send_frame(TEXT, word)
    await silent.read_frame()  # its ping
    await silent.expect_close(1011)  # so much time has passed
    gate.set()
    for word in (b"one", b"two", b"three"):
        await peer.expect_frame(TEXT, word)
