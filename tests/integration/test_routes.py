"""Routes: which callbacks a path leads to, and what is answered where it leads nowhere."""

from __future__ import annotations

from typing import Any

import wsev
from tests.answers import parse_answer
from tests.conftest import Connect, Raw, Serve
from tests.requests import request

Server = wsev.Server[Any]


async def test_a_route_has_callbacks_of_its_own(serve: Serve, connect: Connect) -> None:
    server: Server = wsev.Server()
    server.route("/double").on_message(lambda conn, message: conn.send(message * 2))
    server.on_message(lambda conn, message: conn.send(message))
    await serve(server)
    for path, answer in (("/double", "abab"), ("/other", "ab")):
        client = await connect(server, path)
        await client.send("ab")
        assert await client.recv() == answer


async def test_an_unknown_path_is_404_for_a_websocket(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    server.route("/chat").on_message(lambda conn, message: None)
    peer = await raw(await serve(server))
    await peer.send(request("GET /other HTTP/1.1"))
    assert parse_answer(await peer.reader.read()).status == 404
