"""Topics and broadcasting: who gets a message, how many took it, and in which order it leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import wsev
from tests.conftest import Raw, Serve
from tests.peer import BINARY, TEXT

Server = wsev.Server[Any]


async def test_publish_reaches_every_subscriber_and_no_other(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    server.on_connect(lambda conn: conn.request.path == "/in" and conn.subscribe("room"))
    await serve(server)
    peers = [await raw(server) for _ in range(3)]
    for peer, path in zip(peers, ("/in", "/out", "/in"), strict=True):
        await peer.upgrade(path)
        await peer.fence()
    assert server.publish("room", "hello") == 2
    assert [await peer.fence() for peer in peers] == [[(True, TEXT, b"hello")], [], [(True, TEXT, b"hello")]]


async def test_a_connections_publish_skips_itself(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    took: list[int] = []
    server.on_connect(lambda conn: conn.subscribe("room"))
    server.on_message(lambda conn, message: took.append(conn.publish("room", message)))
    await serve(server)
    first, second = await raw(server), await raw(server)
    await first.upgrade()
    await second.upgrade()
    await second.fence()
    await first.send_frame(TEXT, b"hello")
    assert await first.fence() == []
    assert await second.fence() == [(True, TEXT, b"hello")]
    assert took == [1]


async def test_broadcast_reaches_every_connection(serve: Serve, raw: Raw) -> None:
    server = await serve(wsev.Server())
    peers = [await raw(server) for _ in range(3)]
    for peer in peers:
        await peer.upgrade()
        await peer.fence()
    assert server.broadcast(b"\0") == 3
    assert wsev.broadcast(server.connections, b"text", text=True) == 3
    for peer in peers:
        assert await peer.fence() == [(True, BINARY, b"\0"), (True, TEXT, b"text")]


async def test_topics_can_be_read_in_on_disconnect_and_are_gone_after_it(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    ended: asyncio.Future[tuple[Any, frozenset[str]]] = asyncio.get_running_loop().create_future()
    server.on_connect(lambda conn: conn.subscribe("room"))
    server.on_disconnect(lambda conn, error: ended.set_result((conn, conn.topics)))
    await serve(server)
    peer = await raw(server)
    await peer.upgrade()
    await peer.send_close()
    conn, topics = await ended
    assert topics == {"room"}
    await peer.expect_close(1000)
    assert conn.topics == frozenset()
    assert conn.subscribe("room") is False
    assert conn.topics == frozenset()
    assert server.publish("room", "m") == 0
