"""Programs that run a server with several workers, each in processes of its own, and what they say.

What a program logs and prints is one stream of lines, and each line is an event to wait for; nothing here sleeps.
The clients are raw ones: `visit` opens one and makes the opening handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import textwrap
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.peer import TEXT, Peer

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, os, signal, sys, threading, time
from contextlib import asynccontextmanager
from functools import partial
import wsev

Server = partial(wsev.Server, close_timeout=0.5)  # most clients of these tests do not answer a Close

def say(*what):
    sys.stdout.write(" ".join(map(str, what)) + "\\n")  # in one piece: other processes write to the same pipe
    sys.stdout.flush()

server = Server()

def who(conn, message):
    conn.send(f"{server.worker_id} {os.getpid()}")

"""

Address = int | str  # a port of 127.0.0.1, or a path


class Run:
    """A program that runs: its process, which is the supervisor's, and its workers.

    Attributes:
        lines: all that it has said and was waited for.
        workers: the process number of the worker of each place that is ready.
        port: where it listens.
    """

    def __init__(self, process: Process) -> None:
        assert process.stdout is not None
        self.process = process
        self.lines: list[str] = []
        self.workers: dict[int, int] = {}
        self.port = 0
        self._stream = process.stdout

    async def line(self, pattern: str) -> re.Match[str]:
        """Wait for a line that matches; its end fails the test."""
        async for raw in self._stream:
            line = raw.decode().rstrip("\n")
            self.lines.append(line)
            ready = re.search(r"worker (\d+) \(pid (\d+)\) is ready", line)
            if ready:
                self.workers[int(ready[1])] = int(ready[2])
            found = re.search(pattern, line)
            if found:
                return found
        raise AssertionError(f"it ended without {pattern!r}:\n{self.text}")

    async def started(self) -> Run:
        """Wait until every worker serves."""
        found = await self.line(r"started on (?:wss?://.*:(\d+)|unix:.*), with \d+ workers")
        self.port = int(found[1] or 0)
        return self

    @property
    def text(self) -> str:
        """All that it has said, as far as it was waited for."""
        return "\n".join(self.lines)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        self.process.send_signal(number)

    async def end(self) -> int:
        """Wait for the end of the program, and of all that it said; its exit status."""
        async for raw in self._stream:  # its end is the end of every process that holds it
            self.lines.append(raw.decode().rstrip("\n"))
        return await self.process.wait()

    async def stop(self) -> None:
        """Stop it; the end must be a good one."""
        self.signal(signal.SIGTERM)
        status = await self.end()
        assert status == 0, self.text
        assert "Traceback" not in self.text, self.text
        assert self.lines[-1].endswith(": stopped"), self.text


class Start(Protocol):
    async def __call__(self, body: str, *, run: str = ..., **options: Any) -> Run: ...


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`run = await start(body, run="server.run(0, workers=2)")`: a program with this body, which runs a server so."""
    runs: list[Run] = []

    async def start_program(body: str, *, run: str = "server.run(0, workers=2)", **options: Any) -> Run:
        program = PROGRAM + textwrap.dedent(body) + "\n" + textwrap.dedent(run)
        given: dict[str, Any] = {"stdin": DEVNULL, "start_new_session": True, "cwd": ROOT} | options
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdout=PIPE, stderr=STDOUT, **given
        )
        runs.append(Run(process))
        return runs[-1]

    yield start_program
    for each in runs:
        if each.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(each.process.pid, signal.SIGKILL)
        await each.end()


class Visit(Protocol):
    async def __call__(self, address: Address) -> Peer: ...


@pytest.fixture
async def visit() -> AsyncIterator[Visit]:
    """`peer = await visit(port)`: a client of 127.0.0.1, or of a path, that was let in."""
    peers: list[Peer] = []

    async def open_peer(address: Address) -> Peer:
        peers.append(await connect(address))
        await peers[-1].upgrade()
        return peers[-1]

    yield open_peer
    for peer in peers:
        await peer.close()


async def connect(address: Address) -> Peer:
    """Connect, and say nothing yet."""
    if isinstance(address, str):
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", address)
    return Peer(reader, writer)


async def ask(peer: Peer) -> tuple[int, int]:
    """Which worker a client of a server with `who` is with: its place and its process number."""
    await peer.send_frame(TEXT, b"who?")
    frame = await peer.read_frame()
    place, pid = frame.payload.split()
    return int(place), int(pid)


async def visit_place(visit: Visit, address: Address, place: int) -> Peer:
    """Connect until the worker of this place is met; the others are said goodbye to."""
    while True:
        peer = await visit(address)
        if (await ask(peer))[0] == place:
            return peer
        await peer.send_close()
        await peer.expect_close(1000)
