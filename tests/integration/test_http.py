"""Plain HTTP on the same port: on_request, aiohttp and any ASGI application behind http=, beside WebSockets."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import fastapi
import pytest
from aiohttp import web

import wsev
from tests.answers import parse_answer
from tests.conftest import Connect, Raw, Serve
from tests.requests import PLAIN, request, wire
from wsev import Request, Response, Server


def url(server: Server[Any], path: str = "/") -> str:
    return f"http://127.0.0.1:{server.port}{path}"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def echo(**options: Any) -> Server[Any]:
    server: Server[Any] = Server(**options)
    server.on_message(lambda conn, message: conn.send(message))
    return server


# ----------------------------------------------------------------------------------------------------------- on_request


async def test_on_request_serves_a_page_beside_the_websocket(
    serve: Serve, connect: Connect, http: aiohttp.ClientSession
) -> None:
    server = echo()

    @server.on_request
    def page(request: Request) -> Response:
        if request.path != "/":
            return Response(404)
        return Response(200, "<p>grün", {"Content-Type": "text/html; charset=utf-8"})

    await serve(server)
    async with http.get(url(server)) as answer:
        assert (answer.status, await answer.text()) == (200, "<p>grün")
        assert answer.content_type == "text/html"
    async with http.head(url(server)) as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, "8")
    async with http.get(url(server, "/other")) as answer:
        assert answer.status == 404
    client = await connect(server)
    await client.send("hello")
    assert await client.recv() == "hello"


async def test_an_async_on_request_is_awaited(serve: Serve, http: aiohttp.ClientSession) -> None:
    server = echo()

    @server.on_request
    async def health(request: Request) -> Response:
        await asyncio.sleep(0)
        return Response(200, f"{request.query['a']} {request.remote_address[0]}")

    await serve(server)
    async with http.get(url(server, "/?a=b%20c")) as answer:
        assert await answer.text() == "b c 127.0.0.1"


async def test_a_large_page_reaches_a_slow_reader_whole(serve: Serve, raw: Raw) -> None:
    server = echo()
    page = bytes(range(256)) * 4_000
    server.on_request(lambda request: Response(200, page, {"Content-Type": "application/octet-stream"}))
    peer = await raw(
        await serve(
            server,
        ),
        receive_buffer=4096,
    )
    await peer.send(wire(PLAIN))
    received = b""
    while piece := await peer.reader.read(1 << 16):
        received += piece
    assert parse_answer(received).body == page


async def test_a_client_that_has_sent_fin_gets_its_answer(serve: Serve, raw: Raw) -> None:
    server = echo()
    server.on_request(lambda request: Response(200, "page"))
    peer = await raw(await serve(server))
    await peer.send(wire(PLAIN))
    peer.send_eof()
    assert parse_answer(await peer.reader.read()).body == b"page"


async def test_without_on_request_it_is_426(serve: Serve, http: aiohttp.ClientSession) -> None:
    server = await serve(echo())
    async with http.get(url(server)) as answer:
        assert answer.status == 426
        assert answer.headers["Sec-WebSocket-Version"] == "13"


async def test_the_request_can_be_read_for_as_long_as_the_connection_is_kept(serve: Serve, connect: Connect) -> None:
    server = echo()
    kept: list[wsev.Connection[Any]] = []
    ended = asyncio.Event()
    server.on_connect(kept.append)

    @server.on_disconnect
    def left(conn: wsev.Connection[Any], error: Exception | None) -> None:
        ended.set()

    client = await connect(await serve(server), "/room?name=a%20b")
    address = client.local_address[:2]
    await client.close()
    await ended.wait()
    asked = kept[0].request
    assert (asked.path, asked.query["name"], asked.headers["upgrade"]) == ("/room", "a b", "websocket")
    assert asked.remote_address == address == kept[0].remote_address


# ----------------------------------------------------------------------------------------------------- aiohttp's server


@pytest.fixture
async def aiohttp_app() -> AsyncIterator[web.AppRunner]:
    async def double(request: web.Request) -> web.Response:
        return web.Response(text=(await request.text()) * 2)

    app = web.Application()
    app.router.add_post("/double", double)
    runner = web.AppRunner(app)
    await runner.setup()
    yield runner
    await runner.cleanup()


async def test_aiohttp_serves_what_is_no_websocket(
    serve: Serve, connect: Connect, http: aiohttp.ClientSession, aiohttp_app: web.AppRunner
) -> None:
    server = await serve(echo(http=aiohttp_app.server))
    for size in (1, 10_000, 500_000):  # on one connection, kept alive
        async with http.post(url(server, "/double"), data="a" * size) as answer:
            assert await answer.text() == "a" * size * 2
    client = await connect(server)
    await client.send("hello")
    assert await client.recv() == "hello"


async def test_a_stop_ends_the_connections_of_aiohttp(
    serve: Serve, http: aiohttp.ClientSession, aiohttp_app: web.AppRunner
) -> None:
    server = await serve(echo(http=aiohttp_app.server))
    async with http.post(url(server, "/double"), data="a") as answer:
        assert answer.status == 200
    async with asyncio.timeout(5):  # less than stop_timeout: nobody waits for an idle connection
        await server.stop()
    assert aiohttp_app.server is not None
    assert aiohttp_app.server.connections == []


# ---------------------------------------------------------------------------------------------------- ASGI applications


class Life:
    """What happened to an application."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    def make_app(self) -> fastapi.FastAPI:
        @asynccontextmanager
        async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[dict[str, str]]:
            self.events.append("up")
            yield {"name": "state of the lifespan"}
            self.events.append("down")

        app = fastapi.FastAPI(lifespan=lifespan)

        @app.get("/")
        async def page() -> dict[str, str]:
            return {"it": "works"}

        @app.get("/state")
        async def state(request: fastapi.Request) -> str:
            return str(request.state.name)

        @app.post("/length")
        async def length(request: fastapi.Request) -> int:
            return len(await request.body())

        @app.get("/slow")
        async def slow() -> str:
            self.asked.set()
            await self.go_on.wait()
            return "done"

        return app


async def test_fastapi_serves_what_is_no_websocket(serve: Serve, connect: Connect, http: aiohttp.ClientSession) -> None:
    server = await serve(echo(http=wsev.asgi(Life().make_app())))
    async with http.get(url(server)) as answer:
        assert await answer.json() == {"it": "works"}
        assert len(answer.headers.getall("Date")) == 1
    async with http.post(url(server, "/length"), data=b"a" * 500_000) as answer:
        assert await answer.json() == 500_000
    client = await connect(server)
    await client.send("hello")
    assert await client.recv() == "hello"


async def test_a_websocket_request_never_reaches_the_application(serve: Serve, raw: Raw) -> None:
    server: Server[Any] = Server(http=wsev.asgi(Life().make_app()))
    server.route("/chat").on_message(lambda conn, message: None)
    peer = await raw(await serve(server))
    await peer.send(request("GET / HTTP/1.1"))
    assert parse_answer(await peer.reader.read()).status == 404


async def test_the_applications_lifespan_is_run_where_lifespan_says_so(
    serve: Serve, http: aiohttp.ClientSession
) -> None:
    life = Life()
    app = wsev.asgi(life.make_app())
    server = await serve(echo(http=app, lifespan=app.lifespan))
    assert life.events == ["up"]
    async with http.get(url(server, "/state")) as answer:
        assert await answer.json() == "state of the lifespan"
    assert server.state == {"name": "state of the lifespan"}
    await server.stop()
    assert life.events == ["up", "down"]


async def test_an_application_that_fails_to_start_fails_the_start(
    serve: Serve, expected_errors: list[logging.LogRecord]
) -> None:
    @asynccontextmanager
    async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    app = wsev.asgi(fastapi.FastAPI(lifespan=lifespan))
    with pytest.raises(RuntimeError, match="failed to start"):
        await serve(echo(http=app, lifespan=app.lifespan))


async def test_a_stop_lets_the_application_finish_an_answer(serve: Serve, http: aiohttp.ClientSession) -> None:
    life = Life()
    server = await serve(echo(http=wsev.asgi(life.make_app())))
    asking = asyncio.ensure_future(_text(http, url(server, "/slow")))
    await life.asked.wait()
    stopping = asyncio.ensure_future(server.stop())
    await asyncio.sleep(0)
    life.go_on.set()
    assert await asking == '"done"'
    await stopping


async def test_a_stop_cancels_an_answer_that_takes_too_long(
    serve: Serve, http: aiohttp.ClientSession, expected_errors: list[logging.LogRecord]
) -> None:
    life = Life()
    server = await serve(echo(http=wsev.asgi(life.make_app()), stop_timeout=0.05))
    asking = asyncio.ensure_future(_text(http, url(server, "/slow")))
    await life.asked.wait()
    await server.stop()
    async with asyncio.timeout(5):
        assert await asking == "Internal Server Error"
    assert [record.name for record in expected_errors] == ["uvicorn.error"]


async def _text(http: aiohttp.ClientSession, address: str) -> str:
    async with http.get(address) as answer:
        return await answer.text()


def test_without_uvicorn_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ImportError, match=r"pip install wsev\[asgi\]"):
        wsev.asgi(fastapi.FastAPI())
