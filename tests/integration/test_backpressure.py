"""Backpressure: a peer that does not read is not read from, is told of, and slows nobody else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import wsev
from tests.conftest import Raw, Serve
from tests.peer import BINARY, CLOSE, TEXT

Server = wsev.Server[Any]
Conn = wsev.Connection[Any]

pytestmark = pytest.mark.slow  # megabytes through small buffers

MUCH = b"\0" * 8_000_000  # more than the buffers of a loopback connection take


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


@pytest.mark.parametrize("how", ["send", "publish"])
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
