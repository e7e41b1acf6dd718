"""examples/echo.py and examples/alongside.py, each in a process of its own as a newcomer runs it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.program import Program

# The programs choose their own loop; the test's is only the client's.
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_factories=["asyncio"])]


async def run(program: Program) -> AsyncIterator[Program]:
    await program.start()
    yield program
    await program.stop()


@pytest.fixture(params=["echo", "broadcast"])
async def echo(request: pytest.FixtureRequest) -> AsyncIterator[Program]:
    async for program in run(Program("echo.py", "--mode", request.param)):
        yield program


@pytest.fixture
async def alongside() -> AsyncIterator[Program]:
    async for program in run(Program("alongside.py", ready="Ctrl-C")):
        yield program


def visit(program: Program) -> connect:
    return connect(f"ws://127.0.0.1:{program.port}/", proxy=None)


async def ask(program: Program, method: str, target: str) -> tuple[int, bytes]:
    """One HTTP request to the same port: the status and the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("message", ["text", b"binary", ""])
async def test_echo_comes_back_as_what_it_was(echo: Program, message: str | bytes) -> None:
    async with visit(echo) as client:
        await client.send(message)
        assert await client.recv() == message


@pytest.mark.parametrize("echo", ["broadcast"], indirect=True)
async def test_broadcast_reaches_everybody(echo: Program) -> None:
    async with visit(echo) as sender, visit(echo) as other:
        await sender.send("to all")
        assert [await sender.recv(), await other.recv()] == ["to all"] * 2


async def heard(client: ClientConnection, beginning: str) -> str:
    """The next message that begins so."""
    while not (message := str(await client.recv())).startswith(beginning):
        pass
    return message


async def test_what_is_posted_to_fastapi_comes_out_of_the_websocket(alongside: Program) -> None:
    async with visit(alongside) as client:
        await heard(client, "It is ")  # so on_connect has run, and the background task publishes
        assert await ask(alongside, "POST", "/say?text=hello") == (202, b"null")
        assert await heard(client, "Somebody") == "Somebody says: hello"


async def test_fastapi_sees_the_websockets_of_its_loop(alongside: Program) -> None:
    async with visit(alongside) as client:
        await heard(client, "It is ")
        status, body = await ask(alongside, "GET", "/connections")
        assert (status, json.loads(body)) == (200, {"connections": 1})


async def test_fastapi_answers_its_own_pages(alongside: Program) -> None:
    for path in "/", "/docs":
        status, body = await ask(alongside, "GET", path)
        assert status == 200
        assert b"<html" in body.lower() or b"<!doctype" in body.lower()
