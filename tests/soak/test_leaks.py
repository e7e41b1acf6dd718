"""Memory, descriptors and objects after very many connections that ended in every way, and after dropped loops.

    make soak                           20,000 connections a test, two minutes each
    make soak WSEV_SOAK=1000000         an hour and a half each

What is counted at the end of a round is compared with what was there after the warm-up, so exactly that one object
in each second connection of one way shows.  What breathes is not counted: arenas, the pools' idle buffers.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import os
import socket
import ssl
import sys
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
import uvloop

from tests.soak.clients import FRAGMENTS, HALF, MAX_MESSAGE_SIZE, REQUEST, STAYING, TEXT, WAYS, frame
from wsev import Connection, Request, Response, Server
from wsev._core.loop import LoopState

CONNECTIONS = int(os.environ.get("WSEV_SOAK", "20000"))
ROUNDS = 12  # a stop of the server in each
WARM_UP = 6  # rounds: imports, caches, free lists, arenas
SLACK = 100  # objects that come and go, and the figures themselves: ten a round

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]


# ---------------------------------------------------------------------------------------------------- what is counted


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2 of glibc, from 2.33 on; what it calls uordblks and hblkhd is in use."""

    _fields_ = [
        *((f"other{i}", ctypes.c_size_t) for i in range(4)),
        ("hblkhd", ctypes.c_size_t),
        *((f"more{i}", ctypes.c_size_t) for i in range(2)),
        ("uordblks", ctypes.c_size_t),
        *((f"last{i}", ctypes.c_size_t) for i in range(2)),
    ]


def _allocated() -> int:
    """Bytes that malloc has lent: all memory but Python's arenas, whose blocks are counted by themselves."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        pytest.skip("no mallinfo2: needs glibc 2.33")
    mallinfo2.restype = _Mallinfo
    found = mallinfo2()
    return int(found.uordblks + found.hblkhd)


class Figures(NamedTuple):
    """What a process has in its hands."""

    blocks: int  # of Python's allocator
    objects: int  # that the garbage collector knows
    bytes: int  # of malloc
    lent: int  # the pool's buffers
    descriptors: int
    resident: int  # bytes; for people, since it says little

    @classmethod
    def now(cls, loop: asyncio.AbstractEventLoop | None = None) -> Figures:
        gc.collect()
        pool = None if loop is None else LoopState.of(loop).pool
        idle = 0 if pool is None else pool.idle_bytes
        lent = 0 if pool is None else pool.lent
        descriptors = len(os.listdir("/proc/self/fd"))
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        return cls(sys.getallocatedblocks(), len(gc.get_objects()), _allocated() - idle, lent, descriptors, resident)


def _kinds() -> Counter[str]:
    return Counter(type(each).__qualname__ for each in gc.get_objects())


class Watch:
    """Figures of each round; after the warm-up they must not grow."""

    def __init__(self, each_round: int, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._each_round = each_round
        self._loop = loop
        self._rounds: list[Figures] = []
        self._kinds: Counter[str] = Counter()

    def look(self) -> None:
        if len(self._rounds) == WARM_UP - 1:
            self._kinds = _kinds()
        self._rounds.append(Figures.now(self._loop))
        print(f"{len(self._rounds) * self._each_round:>9}", self._rounds[-1])

    def check(self) -> None:
        first, last = self._rounds[WARM_UP - 1], self._rounds[-1]
        connections = (len(self._rounds) - WARM_UP) * self._each_round
        grown = (_kinds() - self._kinds).most_common(5)
        # Each way leads one connection in len(WAYS): of each two that go one way, not one may leave something.
        leaks = connections // len(WAYS) // 2
        assert last.blocks - first.blocks < SLACK + leaks, f"{first} {last} {grown}"
        assert last.objects - first.objects < SLACK + leaks, f"{first} {last} {grown}"
        assert last.bytes - first.bytes < 500 * SLACK + 100 * leaks, f"{first} {last} {grown}"
        assert last.lent == first.lent == 0
        assert last.descriptors == first.descriptors


# --------------------------------------------------------------------------------------------------------- the server


class Broken(Exception):
    """What callbacks raise."""


def _server(codes: set[int | None]) -> Server[Any]:
    """A server that takes part in every way; it adds to ``codes`` how connections ended."""

    def left(conn: Connection[Any], error: BaseException | None) -> None:
        codes.add(conn.close_code)
        if conn.id % 100 == 0:
            raise Broken

    server: Server[Any] = Server(
        handshake_timeout=0.3,
        upgrade_timeout=0.3,
        read_deadline=0.3,
        idle_timeout=0.6,
        write_timeout=1.0,
        close_timeout=0.3,
        stop_timeout=1.0,
        max_message_size=MAX_MESSAGE_SIZE,
        max_buffered_amount=131_072,
        max_queue=8,
        compression="dedicated",
    )
    for path in ("/", "/raise", "/abort"):
        route = server.route(path)
        route.on_connect(_joined)
        route.on_message(_said)
        route.on_disconnect(left)
    server.route("/refuse").on_upgrade(_refuse)
    server.route("/upgrade/*").on_upgrade(_upgrade)
    return server


def _joined(conn: Connection[Any]) -> None:
    conn.state = [conn]  # a cycle, as applications make them
    conn.subscribe("all")
    if conn.request.path == "/raise":
        raise Broken
    if conn.request.path == "/abort":
        conn.abort()


def _said(conn: Connection[Any], message: str | bytes) -> Any:
    if message == "close":
        conn.close(1000, "as you wish")
    elif message == "abort":
        conn.abort()
    elif message == "raise":
        raise Broken
    elif message == "raise later":
        return _raise_later(conn)
    elif message == "wait":
        return conn.wait_closed()
    elif message == "think":
        return asyncio.sleep(0)
    elif message == "task":
        conn.create_task(_wait_for_ever())
    elif message == "raise in a task":
        conn.create_task(_raise_later(conn))
    elif message == "flood":
        while conn.send(bytes(30_000)):
            pass
    elif message == "publish":
        conn.subscribe(f"topic {conn.id}")
        conn.publish("all", f"from {conn.id}")
    else:
        conn.send(message)
    return None


async def _raise_later(conn: Connection[Any]) -> None:
    await conn.drain()
    await asyncio.sleep(0)
    raise Broken


async def _wait_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def _refuse(request: Request) -> Response:
    return Response(401, "not you")


async def _upgrade(request: Request) -> None:
    if request.path.endswith("raise"):
        raise Broken
    await _wait_for_ever()


@pytest.fixture
async def clients() -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.soak.clients",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    yield process
    await process.communicate(b"")  # with no input it would not be told of the end
    assert process.returncode == 0


@pytest.fixture
def _no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing keeps records with their tracebacks, as pytest does until the end of the test."""
    monkeypatch.setattr(logging.getLogger("wsev"), "disabled", True)
    for name in ("wsev.handshake", "wsev.connection", "wsev.worker", "wsev.broker", "asyncio"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)


# ---------------------------------------------------------------------------------------------------------- the tests


@pytest.mark.usefixtures("_no_log")
@pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])
async def test_memory_descriptors_and_objects_are_flat(
    kind: str, clients: asyncio.subprocess.Process, tmp_path: Path
) -> None:
    assert clients.stdin is not None
    assert clients.stdout is not None
    listening: dict[str, Any] = {}
    authority = None
    if kind == "unix":
        listening["unix"] = tmp_path / "socket"
    if kind == "tls":
        ca = trustme.CA()
        listening["ssl"] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("localhost").configure_cert(listening["ssl"])
        authority = str(tmp_path / "authority.pem")
        ca.cert_pem.write_to_path(authority)
    count = max(len(WAYS), CONNECTIONS // ROUNDS)
    watch = Watch(count, asyncio.get_running_loop())
    codes: set[int | None] = set()
    server = _server(codes)
    for _ in range(ROUNDS):
        async with server.listen(0, **listening):
            order = {"address": server.addresses[0], "authority": authority, "count": count - STAYING}
            clients.stdin.write(json.dumps(order).encode() + b"\n")
            assert await clients.stdout.readline() == b"staying\n"
        assert await clients.stdout.readline() == b"done\n"
        watch.look()
    watch.check()
    assert codes == {1000, 1001, 1002, 1006, 1007, 1008, 1009, 1011, 1013}, "some way was not gone"


@pytest.mark.usefixtures("_no_log")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # unclosed transports are the point
@pytest.mark.parametrize("make_loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_a_loop_that_is_dropped_without_a_stop_takes_everything_along(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    count = max(50, CONNECTIONS // 400)
    watch = Watch(count)
    for _ in range(ROUNDS):
        for _ in range(count):
            seen = _drop_a_loop(make_loop())
            gc.collect()
            assert not list(seen)
        watch.look()
    watch.check()


def _drop_a_loop(loop: asyncio.AbstractEventLoop) -> weakref.WeakSet[Any]:
    """Connections in every state, then the end of their loop; returns what must be gone with it."""
    loop.set_exception_handler(lambda loop, context: None)  # pending tasks that are destroyed
    seen: weakref.WeakSet[Any] = weakref.WeakSet()
    server = _server(set())
    clients: list[socket.socket] = []

    async def open_some() -> None:
        await server.start(0)
        for data in (b"", HALF, FRAGMENTS, frame(TEXT, b"wait") + frame(TEXT, b"small"), frame(TEXT, b"task")):
            clients.append(socket.socket())
            clients[-1].setblocking(False)
            await loop.sock_connect(clients[-1], server.addresses[0])
            await loop.sock_sendall(clients[-1], REQUEST % (b"/", b"") + data)
            assert b" 101 " in await loop.sock_recv(clients[-1], 4096)
        assert len(server.connections) == len(clients)
        for conn in server.connections:
            seen.add(conn)
            conn.send("never sent, since the loop does not turn again")
            conn.send(bytes(50_000))

    loop.run_until_complete(open_some())
    loop.close()
    for client in clients:
        client.close()
    assert seen
    return seen
