"""run(): one process with its signals, and how it ends."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import subprocess
import sys
import textwrap
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from mmap import PAGESIZE
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect

Start = Callable[[str], Awaitable[tuple[Process, str]]]

PROGRAM = """
import asyncio, os, signal, sys, time
import wsev
before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
server = wsev.Server(stop_timeout=5)
"""

ENDING = """
try:
    server.run(0)
    print("returned", flush=True)
finally:
    assert before == {number: signal.getsignal(number) for number in before}, "a signal handler is left"
    assert not asyncio._get_running_loop()
"""


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`process, address = await start(body)`: a program that runs a server with this body's callbacks."""
    processes: list[Process] = []

    async def start_program(body: str) -> tuple[Process, str]:
        program = PROGRAM + textwrap.dedent(body) + ENDING
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdout=PIPE, stderr=PIPE, cwd=Path(__file__).parents[2]
        )
        processes.append(process)
        assert process.stderr is not None
        read = b""
        async for line in process.stderr:
            read += line
            if b"started on ws://" in line:
                return process, line.split()[-1].decode()
        raise AssertionError(f"it did not start:\n{read.decode()}")

    yield start_program
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.communicate()


ECHO = """
@server.on_message
def said(conn, message):
    conn.send(message)

@server.on_disconnect
def left(conn, error):
    print("left", error, flush=True)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or os.environ.get("WSEV_SANITIZE") == "1",
    reason="other allocators decide for themselves",
)
async def test_large_messages_are_received_into_memory_that_the_process_has_already(start: Start) -> None:
    process, address = await start(
        """
        from resource import RUSAGE_SELF, getrusage

        @server.on_binary
        def echo(conn, message):
            conn.send(message)

        @server.on_text
        def count(conn, message):
            conn.send(str(getrusage(RUSAGE_SELF).ru_minflt))
        """
    )
    message = bytes(512 * 1024)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(address, proxy=None, compression=None)) for _ in range(8)]

        async def echo(client: ClientConnection) -> None:
            await client.send(message)
            assert await client.recv() == message

        faults = []
        for _ in range(3):
            for _ in range(5):
                await asyncio.gather(*map(echo, clients))
            await clients[0].send("count")
            faults.append(int(await clients[0].recv()))
    pages = 5 * len(clients) * len(message) // PAGESIZE
    assert faults[2] - faults[1] < pages / 10, f"new pages for {pages} of messages: {faults}"
    process.send_signal(signal.SIGTERM)
    await process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_gracefully(start: Start, number: signal.Signals) -> None:
    process, address = await start(ECHO)
    async with connect(address, proxy=None) as client:
        await client.send("hello")
        assert await client.recv() == "hello"
        process.send_signal(number)
        await client.wait_closed()
        assert client.close_code == 1001
    stdout, stderr = await process.communicate()
    assert (process.returncode, stdout) == (0, b"left None\nreturned\n"), stderr.decode()
    assert f"{number.name}: stopping".encode() in stderr
    assert b"stopped" in stderr
    assert b"Traceback" not in stderr


@pytest.mark.slow
async def test_a_second_signal_ends_at_once_though_a_callback_never_returns(start: Start) -> None:
    process, address = await start(
        """
        @server.on_message
        def said(conn, message):
            print("in it", flush=True)
            while True:
                pass
        """
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with connect(address, proxy=None, close_timeout=0.1) as client:
        await client.send("hello")
        assert await process.stdout.readline() == b"in it\n"
        process.send_signal(signal.SIGTERM)
        assert b"SIGTERM: stopping" in await process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == -signal.SIGTERM


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["def", "async def", "async def that suspends"])
async def test_system_exit_in_a_callback_stops_the_server_and_leaves_run(start: Start, kind: str) -> None:
    process, address = await start(
        f"""
        @server.on_message
        {kind.removesuffix(" that suspends")} said(conn, message):
            {"await asyncio.sleep(0)" if "suspends" in kind else "pass"}
            raise SystemExit(7)

        @server.on_disconnect
        def left(conn, error):
            print("left", flush=True)
        """
    )
    async with connect(address, proxy=None) as client:
        await client.send("hello")
        await client.wait_closed()
        assert client.close_code == 1001
    stdout, stderr = await process.communicate()
    assert (process.returncode, stdout) == (7, b"left\n"), stderr.decode()
    assert b"Traceback" not in stderr


@pytest.mark.slow
async def test_keyboard_interrupt_in_a_callback_leaves_run(start: Start) -> None:
    process, address = await start(
        """
        @server.on_message
        def said(conn, message):
            raise KeyboardInterrupt
        """
    )
    async with connect(address, proxy=None) as client:
        await client.send("hello")
        await client.wait_closed()
    _, stderr = await process.communicate()
    assert process.returncode == -signal.SIGINT, stderr.decode()
    assert b"KeyboardInterrupt" in stderr


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONDEVMODE": "1"},
    )


BESIDE = """
import uvloop
from websockets.asyncio.client import connect

@server.on_disconnect
def left(conn, error):
    print("left")

async def main():
    async with server.listen(0):
        async with connect(f"ws://127.0.0.1:{server.port}/", proxy=None) as client:
            await client.send("hello")
            await client.recv()
"""


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio.run", "uvloop.run"])
@pytest.mark.parametrize("kind", ["def", "async def", "async def that suspends"])
def test_system_exit_in_a_callback_leaves_a_loop_that_is_not_ours_too(loop: str, kind: str) -> None:
    done = run(
        BESIDE
        + f"""
@server.on_message
{kind.removesuffix(" that suspends")} said(conn, message):
    {"await asyncio.sleep(0)" if "suspends" in kind else "pass"}
    raise SystemExit(7)

{loop}(main())
"""
    )
    assert (done.returncode, done.stdout) == (7, "left\n"), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_program_that_ends_without_a_stop_does_not_crash(loop: str) -> None:
    done = run(
        f"""
        import uvloop
        from websockets.asyncio.client import connect

        async def main():
            await server.start(0)
            global client
            client = await connect(f"ws://127.0.0.1:{{server.port}}/", proxy=None)

        loop = {loop}.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        """
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_busy_port_ends_the_program_with_what_to_do() -> None:
    done = run(
        """
        import socket
        taken = socket.create_server(("127.0.0.1", 0))
        server.run(taken.getsockname()[1])
        """
    )
    assert done.returncode == 1
    assert "is in use: stop the program that has it, or take another port" in done.stderr


@pytest.mark.slow
def test_it_runs_in_a_thread_and_returns_when_it_is_stopped() -> None:
    done = run(
        """
        import threading
        from contextlib import asynccontextmanager

        started = threading.Event()

        @asynccontextmanager
        async def lifespan(server):
            server.loop.call_soon(started.set)
            yield
            print("left")

        server = wsev.Server(lifespan=lifespan)
        thread = threading.Thread(target=server.run, args=(0,))
        thread.start()
        started.wait()
        loop = server.loop
        asyncio.run_coroutine_threadsafe(server.stop(), loop)
        thread.join()
        print(server)
        """
    )
    assert (done.returncode, done.stdout) == (0, "left\n<Server IDLE, 0 connections>\n"), done.stderr
