"""Connection.create_task: tasks that belong to a connection, and end with it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import wsev
from tests.conftest import Raw, Serve
from tests.peer import TEXT

Server = wsev.Server[Any]
Conn = wsev.Connection[Any]


async def test_a_task_may_await_a_later_message_of_its_connection(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()

    async def ask(conn: Conn) -> None:
        conn.state = asyncio.get_running_loop().create_future()
        conn.send("your name?")
        conn.send(f"hello {await conn.state}")

    @server.on_connect
    def joined(conn: Conn) -> None:
        conn.create_task(ask(conn))

    server.on_text(lambda conn, message: conn.state.set_result(message))
    peer = await raw(await serve(server))
    await peer.upgrade()
    await peer.expect_frame(TEXT, b"your name?")
    await peer.send_frame(TEXT, b"Ada")
    await peer.expect_frame(TEXT, b"hello Ada")


async def test_a_task_that_ends_leaves_its_connection_open(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()

    async def say(conn: Conn) -> None:
        conn.send("said")

    @server.on_message
    async def said(conn: Conn, message: Any) -> None:
        await conn.create_task(say(conn))

    peer = await raw(await serve(server))
    await peer.upgrade()
    for _ in range(2):
        await peer.send_frame(TEXT, b"m")
        await peer.expect_frame(TEXT, b"said")


@pytest.mark.parametrize("suspends", [False, True], ids=["at once", "suspended"])
async def test_what_a_task_raises_ends_its_connection_with_1011_and_is_told(
    serve: Serve, raw: Raw, expected_errors: list[logging.LogRecord], suspends: bool
) -> None:
    server: Server = wsev.Server()
    cause = LookupError("no such room")
    told: list[Any] = []
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def fail() -> None:
        if suspends:
            await asyncio.sleep(0)
        raise cause

    @server.on_connect
    def joined(conn: Conn) -> None:
        conn.create_task(fail())

    server.on_error(lambda error, is_fatal: told.append(error))
    server.on_disconnect(lambda conn, error: ended.set_result(error))
    peer = await raw(await serve(server))
    await peer.upgrade()
    await peer.expect_close(1011)
    await peer.close()
    error = await ended
    assert isinstance(error, wsev.CallbackError)
    assert (told, error.__cause__) == ([error], cause)


async def test_after_the_end_create_task_raises_and_runs_nothing(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    ran: list[bool] = []
    server = await serve(server)
    peer = await raw(server)
    await peer.upgrade()
    await peer.fence()
    (conn,) = server.connections
    conn.abort()

    async def never() -> None:
        ran.append(True)

    with pytest.raises(wsev.ConnectionClosed):
        conn.create_task(never())
    await conn.wait_closed()
    assert ran == []
