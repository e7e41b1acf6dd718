"""on_disconnect: exactly once for each connection, last, and with the reason, however the connection ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import wsev
from tests.conftest import Raw, Serve
from tests.gate import Gate
from tests.peer import CLOSE, TEXT, Peer, encode_frame

Server = wsev.Server[Any]
Conn = wsev.Connection[Any]


def recording(log: list[Any], **options: Any) -> Server:
    """A server that writes down messages and ends, and does what a message says."""
    server: Server = wsev.Server(**options)

    @server.on_message
    def said(conn: Conn, message: Any) -> None:
        log.append(message)
        if message == "close":
            conn.close(3000, "enough")
        elif message == "abort":
            conn.abort()

    server.on_disconnect(lambda conn, error: log.append((conn.close_code, conn.close_reason, type(error))))
    return server


async def peer_closes(peer: Peer) -> None:
    await peer.send_close(3001, "bye")
    await peer.expect_close(3001)


async def peer_closes_without_a_code(peer: Peer) -> None:
    await peer.send_close(None)
    await peer.expect_close(None)


async def we_close(peer: Peer) -> None:
    await peer.send_frame(TEXT, b"close")
    frame = await peer.read_frame()
    assert (frame.opcode, frame.payload) == (CLOSE, b"\x0b\xb8enough")
    await peer.send_close(3000)
    await peer.read_eof()


async def we_abort(peer: Peer) -> None:
    await peer.send_frame(TEXT, b"abort")
    await peer.read_eof()


async def fin(peer: Peer) -> None:
    peer.send_eof()
    await peer.read_eof()


async def reset(peer: Peer) -> None:
    peer.reset()


async def unmasked(peer: Peer) -> None:
    await peer.send_frame(TEXT, b"m", masked=False)
    await peer.expect_close(1002)


async def too_big(peer: Peer) -> None:
    await peer.send_frame(TEXT, b"m" * 2000)
    await peer.expect_close(1009)


ENDINGS = [
    pytest.param(peer_closes, ["m", (3001, "bye", type(None))], id="Close from the peer"),
    pytest.param(peer_closes_without_a_code, ["m", (1005, "", type(None))], id="Close without a code"),
    pytest.param(we_close, ["m", "close", (3000, "", type(None))], id="our Close, answered"),
    pytest.param(we_abort, ["m", "abort", (1006, "", ConnectionAbortedError)], id="abort"),
    pytest.param(fin, ["m", (1006, "", ConnectionResetError)], id="FIN"),
    pytest.param(reset, ["m", (1006, "", ConnectionResetError)], id="RST"),
    pytest.param(unmasked, ["m", (1002, "", wsev.ProtocolError)], id="protocol error"),
    pytest.param(too_big, ["m", (1009, "", wsev.MessageTooBig)], id="message too big"),
]


@pytest.mark.parametrize(("end", "expected"), ENDINGS)
async def test_on_disconnect_comes_once_last_and_with_the_reason(
    serve: Serve, raw: Raw, end: Callable[[Peer], Awaitable[None]], expected: list[Any]
) -> None:
    log: list[Any] = []
    server = await serve(recording(log, max_message_size=1000))
    peer = await raw(server)
    await peer.upgrade()
    await peer.send_frame(TEXT, b"m")
    await peer.fence()
    (conn,) = server.connections
    await end(peer)
    await peer.close()
    await conn.wait_closed()
    await server.stop()
    assert log == expected


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(encode_frame(CLOSE, b"\x03\xe8"), id="Close"),
        pytest.param(None, id="FIN"),
    ],
)
async def test_messages_before_the_end_are_delivered_even_behind_a_suspended_callback(
    serve: Serve, raw: Raw, end: bytes | None
) -> None:
    server: Server = wsev.Server(max_queue=1)
    gate = Gate()
    server.on_message(gate)
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @server.on_disconnect
    def left(conn: Conn, error: Exception | None) -> None:
        if conn.request.path == "/":
            gate.ended.append("left")
            ended.set_result(None)

    await serve(server)
    peer, other = await raw(server), await raw(server)
    await peer.upgrade()
    await other.upgrade("/other")
    await peer.send(b"".join(encode_frame(TEXT, b"%d" % number) for number in range(5)) + (end or b""))
    if end is None:
        peer.send_eof()
    await other.fence()  # all of it is in the server's socket
    gate.open()
    await ended
    assert gate.ended == ["0", "1", "2", "3", "4", "left"]


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_after_our_own_end_not_even_what_was_parsed_is_delivered(serve: Serve, raw: Raw, how: str) -> None:
    log: list[Any] = []
    server = await serve(recording(log))
    peer = await raw(server)
    await peer.upgrade()
    await peer.fence()
    (conn,) = server.connections
    await peer.send(encode_frame(TEXT, how.encode()) + encode_frame(TEXT, b"behind") + encode_frame(CLOSE))
    await conn.wait_closed()
    await server.stop()
    assert [entry for entry in log if isinstance(entry, str)] == [how]


async def test_on_disconnect_waits_for_the_running_callback_and_the_connections_tasks(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    gate = Gate()
    log: list[str] = []
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ticker() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("task cancelled")

    @server.on_message
    async def said(conn: Conn, message: Any) -> None:
        conn.create_task(ticker())
        await gate.wait()
        log.append("callback ended")

    @server.on_disconnect
    def left(conn: Conn, error: Exception | None) -> None:
        log.append("left")
        ended.set_result(None)

    peer = await raw(await serve(server))
    await peer.upgrade()
    await peer.send_frame(TEXT, b"m")
    await peer.fence()
    (conn,) = server.connections
    peer.reset()
    await conn.wait_closed()
    assert "left" not in log
    gate.open()
    await ended
    assert sorted(log[:2]) == ["callback ended", "task cancelled"]
    assert log[2:] == ["left"]


async def test_a_connection_after_its_end_is_a_value(serve: Serve, raw: Raw) -> None:
    server = await serve(recording([]))
    peer = await raw(server)
    await peer.upgrade()
    await peer.fence()
    (conn,) = server.connections
    address = conn.remote_address
    conn.state = "mine"
    await peer.send_close(1000)
    await peer.expect_close(1000)
    await conn.wait_closed()
    assert (conn.is_open, conn.send("m"), conn.ping(), conn.subscribe("room")) == (False, False, False, False)
    conn.close()
    conn.abort()
    conn.flush()
    with pytest.raises(wsev.ConnectionClosed):
        await conn.drain()
    await conn.wait_closed()
    assert (conn.remote_address, conn.state, conn.request.path, conn in {conn}) == (address, "mine", "/", True)
