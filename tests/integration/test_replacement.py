"""A server whose place is taken by another process: what it has begun it finishes, and its clients come again."""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trustme

from tests.conftest import Raw
from tests.peer import CLOSE, TEXT, Peer, upgrade_request
from wsev import Server
from wsev.options import Listening
from wsev.server import ServerRun

RunServer = Callable[..., Awaitable[ServerRun]]
REQUEST = upgrade_request()
AGAIN = b"\x03\xf4"  # 1012


@pytest.fixture
async def run() -> AsyncIterator[RunServer]:
    """`service = await run(server)`: the server as the service of a worker, which the test stops."""
    started: list[ServerRun] = []

    async def start(server: Server[Any], **listening: Any) -> ServerRun:
        service = ServerRun(lambda: server, Listening.of(0, **listening))
        await service.start(lambda error: None)
        started.append(service)
        return service

    yield start
    for service in started:
        await service.stop(is_replaced=False)


async def stop_has_begun(service: ServerRun, raw: Raw, server: Server[Any]) -> asyncio.Future[None]:
    """Let its place be taken.  All that connected before is accepted by now, and no more is."""
    peer = await raw(server)
    await peer.upgrade("/witness")
    stopping = asyncio.ensure_future(service.stop(is_replaced=True))
    frame = await peer.read_frame()
    while frame.opcode != CLOSE:
        frame = await peer.read_frame()
    assert frame.payload == AGAIN
    await peer.send_close(1012)
    await peer.read_eof()
    return stopping


async def begin(raw: Raw, server: Server[Any]) -> Peer:
    """A client that has sent half of its request."""
    peer = await raw(server)
    await peer.send(REQUEST[:20])
    return peer


async def test_who_is_connected_is_told_to_come_again(run: RunServer, raw: Raw) -> None:
    service = await run(server := Server[Any]())
    peer = await raw(server)
    await peer.upgrade()
    stopping = asyncio.ensure_future(service.stop(is_replaced=True))
    assert await peer.read_frame() == (True, CLOSE, AGAIN)
    await peer.send_close(1012)
    await peer.read_eof()
    await stopping


async def test_a_handshake_that_has_begun_is_finished_and_then_told_to_come_again(run: RunServer, raw: Raw) -> None:
    server = Server[Any]()
    ends: list[tuple[int | None, object]] = []
    server.on_connect(lambda conn: conn.send("welcome"))
    server.on_disconnect(lambda conn, error: ends.append((conn.close_code, error)))
    service = await run(server)
    peer = await begin(raw, server)
    stopping = await stop_has_begun(service, raw, server)
    await peer.send(REQUEST[20:])
    assert (await peer.read_head()).status == 101
    assert await peer.read_frame() == (True, TEXT, b"welcome")
    assert await peer.read_frame() == (True, CLOSE, AGAIN)
    await peer.send_close(1012)
    await peer.read_eof()
    await stopping
    assert ends[-1] == (1012, None)


async def test_one_that_waits_for_an_async_on_upgrade_is_finished(run: RunServer, raw: Raw) -> None:
    server = Server[Any]()
    asked, gate = asyncio.Event(), asyncio.Event()

    @server.on_upgrade
    async def decide(request: Any) -> None:
        if request.path != "/witness":
            asked.set()
            await gate.wait()

    service = await run(server)
    peer = await raw(server)
    await peer.send(REQUEST)
    await asked.wait()
    stopping = await stop_has_begun(service, raw, server)
    gate.set()
    assert (await peer.read_head()).status == 101
    assert await peer.read_frame() == (True, CLOSE, AGAIN)
    await peer.send_close(1012)
    await stopping


async def test_one_that_is_within_its_tls_handshake_is_finished(run: RunServer, raw: Raw) -> None:
    authority = trustme.CA()
    ours, his = tls.SSLContext(tls.PROTOCOL_TLS_SERVER), tls.create_default_context()
    authority.issue_cert("localhost").configure_cert(ours)
    authority.configure_trust(his)
    server = Server[Any]()
    service = await run(server, ssl=ours)
    first = await raw(server)  # without TLS yet
    behind = await raw(server, ssl=his)
    await behind.upgrade()
    stopping = asyncio.ensure_future(service.stop(is_replaced=True))
    assert await behind.read_frame() == (True, CLOSE, AGAIN)  # the stop has begun
    await first.writer.start_tls(his, server_hostname="localhost")
    await first.upgrade()
    assert await first.read_frame() == (True, CLOSE, AGAIN)
    for peer in (first, behind):
        await peer.send_close(1012)
    await stopping


async def test_who_says_nothing_is_waited_for_no_longer_than_stop_timeout(run: RunServer, raw: Raw) -> None:
    server = Server[Any](stop_timeout=0.1)
    service = await run(server)
    silent, slow = await raw(server), await begin(raw, server)
    await (await stop_has_begun(service, raw, server))
    await silent.read_eof()
    assert (await slow.read_answer())[0].status == 503


async def test_without_handshakes_there_is_nothing_to_wait_for(run: RunServer) -> None:
    service = await run(Server[Any](stop_timeout=None))
    await service.stop(is_replaced=True)
