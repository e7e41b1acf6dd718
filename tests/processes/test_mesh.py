"""The mesh between processes: workers of one run, of uvicorn, and programs that only publish."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import textwrap
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.peer import TEXT, Peer
from tests.processes.conftest import ROOT, Start, Visit, visit_place

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_factories=["asyncio"])]  # this loop is only the clients'

# A client that says "known?" tells every worker, over the mesh, what its own worker's clients want; all hear "known".
ROOM = """
@server.on_connect
def joined(conn):
    conn.subscribe("room")

@server.on_message
def said(conn, message):
    if message == "who?":
        conn.send(f"{server.worker_id} {os.getpid()}")
    elif message == "known?":
        server.publish("known", "known")
    else:
        server.publish("room", message)

def known(topic, message):
    for conn in server.connections:
        conn.send(message)

server.subscribe("known", known)
"""

FAILED = """
@server.on_error
def failed(error, is_fatal):
    say(type(error).__name__, error)
"""


async def acquaint(*peers: Peer) -> None:
    """Wait until the worker of each client knows what the clients of the others want."""
    for each in peers:
        await each.send_frame(TEXT, b"known?")
        for peer in peers:
            await peer.expect_frame(TEXT, b"known")


async def say(peer: Peer, message: bytes, *to: Peer) -> None:
    """What one client says, all get."""
    await peer.send_frame(TEXT, message)
    for each in (peer, *to):
        await each.expect_frame(TEXT, message)


# Workers of one run.


async def test_messages_arrive_in_the_other_worker_in_order(start: Start, visit: Visit) -> None:
    run = await (await start(ROOM)).started()
    here, there = await visit_place(visit, run.port, 0), await visit_place(visit, run.port, 1)
    await acquaint(here, there)
    for number in range(2000):
        await here.send_frame(TEXT, b"%d" % number)
    for number in range(2000):
        await there.expect_frame(TEXT, b"%d" % number)
    await say(there, b"answer")
    assert [frame.payload for frame in await here.fence()] == [b"%d" % number for number in range(2000)] + [b"answer"]
    await run.stop()


async def test_who_is_killed_is_told_the_other_goes_on_and_the_successor_joins(start: Start, visit: Visit) -> None:
    run = await (await start(ROOM + FAILED)).started()
    here, there = await visit_place(visit, run.port, 0), await visit_place(visit, run.port, 1)
    await acquaint(here, there)
    os.kill(run.workers[1], signal.SIGKILL)
    await run.line("BrokerError the link to the worker at [0-9a-f]{8} was lost")
    await say(here, b"goes on")
    await run.line(r"worker 1 \(pid \d+\) is ready")
    again = await visit_place(visit, run.port, 1)
    await acquaint(here, again)
    await say(here, b"hello", again)
    await say(again, b"hello yourself", here)
    assert await here.fence() == []
    await run.stop()


async def test_a_worker_that_hangs_holds_nobody_up_and_gets_what_was_kept_for_it(start: Start, visit: Visit) -> None:
    run = await (await start(ROOM + FAILED)).started()
    here, there = await visit_place(visit, run.port, 0), await visit_place(visit, run.port, 1)
    await acquaint(here, there)
    os.kill(run.workers[1], signal.SIGSTOP)
    try:
        for number in range(1000):
            await say(here, b"%d" % number + bytes(100))
    finally:
        os.kill(run.workers[1], signal.SIGCONT)
    for number in range(1000):
        await there.expect_frame(TEXT, b"%d" % number + bytes(100))
    await run.stop()
    assert "BrokerError" not in run.text


async def test_workers_that_are_replaced_are_no_trouble(start: Start, visit: Visit) -> None:
    run = await (await start(ROOM + FAILED)).started()
    run.signal(signal.SIGHUP)
    await run.line(r"worker 0 \(pid \d+\) stopped")
    await run.line(r"worker 1 \(pid \d+\) stopped")
    here, there = await visit_place(visit, run.port, 0), await visit_place(visit, run.port, 1)
    await acquaint(here, there)
    await say(here, b"hello", there)
    await run.stop()
    assert "BrokerError" not in run.text


async def test_broadcast_reaches_the_connections_of_both_workers(start: Start, visit: Visit) -> None:
    run = await (await start(ROOM.replace('publish("room", message)', "broadcast(message)"))).started()
    here, there = await visit_place(visit, run.port, 0), await visit_place(visit, run.port, 1)
    await say(here, b"hello", there)
    await say(there, b"hello", here)
    await run.stop()


async def test_the_directory_of_a_run_is_private_and_gone_with_it(start: Start, visit: Visit, tmp_path: Path) -> None:
    run = await start(ROOM, env=os.environ | {"TMPDIR": str(tmp_path)})
    await run.started()
    (directory,) = _files(tmp_path)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert [path.suffix for path in _files(directory)] == [".sock"] * 2
    await run.stop()
    assert _files(tmp_path) == []


def _files(directory: Path) -> list[Path]:
    return list(directory.iterdir())


# Processes that wsev did not start.

APPLICATION = """
import os
from contextlib import asynccontextmanager

from fastapi import FastAPI

import wsev

server = wsev.Server(broker=os.environ["MESH"], close_timeout=0.5)
ROOM
@asynccontextmanager
async def lifespan(app):
    async with server.listen(0):
        print(f"wsev on port {server.port}", flush=True)
        yield

app = FastAPI(lifespan=lifespan)

@app.post("/say/{text}")
async def say(text: str):
    server.publish("room", text)
    return {"worker": os.getpid()}
""".replace("ROOM", ROOM)


class Uvicorn:
    """uvicorn with two workers, each of which listens with a wsev server of its own beside FastAPI.

    Attributes:
        port: uvicorn's.
        ports: those of the servers.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.port = 0
        self.ports: list[int] = []
        self.said = ""

    async def started(self) -> None:
        assert self.process.stdout is not None
        ready = 0
        while ready < 2:
            line = (await self.process.stdout.readline()).decode()
            assert line, f"it ended:\n{self.said}"
            self.said += line
            if found := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
            if found := re.search(r"wsev on port (\d+)", line):
                self.ports.append(int(found[1]))
            ready += "Application startup complete" in line

    async def post(self, path: str) -> str:
        """Ask one of the workers, the kernel chooses which; the answer's body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        writer.close()
        await writer.wait_closed()
        return body.decode()

    async def stop(self) -> None:
        self.process.terminate()
        said, _ = await self.process.communicate()
        self.said += said.decode()
        assert "Traceback" not in self.said, self.said


@pytest.fixture
async def uvicorn(tmp_path: Path) -> AsyncIterator[Uvicorn]:
    (tmp_path / "application.py").write_text(APPLICATION)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "application:app", "--workers", "2", "--port", "0"),
        cwd=tmp_path,
        env=os.environ | {"MESH": f"unix:{tmp_path}/mesh", "PYTHONPATH": str(ROOT)},
        stdout=PIPE,
        stderr=STDOUT,
        start_new_session=True,
    )
    yield Uvicorn(process)
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


@pytest.mark.timeout(60)
async def test_uvicorn_workers_with_fastapi_are_one_room(uvicorn: Uvicorn, visit: Visit, tmp_path: Path) -> None:
    await uvicorn.started()
    here, there = [await visit(port) for port in uvicorn.ports]
    await acquaint(here, there)
    await say(here, b"from a client", there)
    await say(there, b"and back", here)
    workers = set()
    for number in range(50):
        workers.add(await uvicorn.post(f"/say/{number}"))
        for peer in (here, there):
            await peer.expect_frame(TEXT, b"%d" % number)
        if number >= 5 and len(workers) == 2:
            break
    await uvicorn.stop()
    assert _files(tmp_path / "mesh") == []


@pytest.mark.parametrize("kind", ["with", "async with"])
async def test_a_program_that_is_no_server_publishes_to_every_worker(
    start: Start, visit: Visit, tmp_path: Path, kind: str
) -> None:
    url = f"unix:{tmp_path}/mesh"
    run = await (await start(f"server = Server(broker={url!r})" + ROOM)).started()
    here, there = await visit_place(visit, run.port, 0), await visit_place(visit, run.port, 1)
    program = f"""
        import asyncio, wsev

        {"async " if kind == "async with" else ""}def main():
            {kind} wsev.Publisher({url!r}) as publisher:
                for number in range(100):
                    publisher.publish("room", str(number))

        {"asyncio.run(main())" if kind == "async with" else "main()"}
    """
    publisher = await asyncio.create_subprocess_exec(sys.executable, "-c", textwrap.dedent(program), cwd=ROOT)
    assert await publisher.wait() == 0
    for peer in (here, there):
        for number in range(100):
            await peer.expect_frame(TEXT, b"%d" % number)
    await run.stop()
