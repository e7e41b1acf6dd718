"""What every test can use: both event loops, a server, two kinds of client, and the guards after each test.

`serve` starts a server on a free port, `connect` is the client `websockets` (an independent peer), `raw` speaks bytes.
The guards fail a test that left something behind or that made the loop or the log complain, however green it was.
A test that expects ERROR records asks for `expected_errors` and looks at them.
Nothing here sleeps: that nothing came is proven by `fence()`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
import socket
import ssl as tls
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest
import pytest_asyncio
import uvloop
from hypothesis import settings
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websockets_connect

from tests.peer import Peer

if TYPE_CHECKING:
    from wsev import Server

S = TypeVar("S", bound="Server[Any]")

# How long an example takes is the machine's affair, too; tests' own limit ends one that hangs.
settings.register_profile("wsev", settings(), deadline=None)
settings.load_profile("wsev")

# A shell's background job ignores SIGINT, and nohup SIGHUP; what tests start would inherit that, and ignore them, too.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


# ---------------------------------------------------------------------------------------------------------- the loops


def _eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()  # not uvloop's: its create_task calls the factory as Python 3.13.0's cannot be
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]  # from Python 3.12
    return loop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Each async test runs once per factory; `@pytest.mark.asyncio(loop_factories=["uvloop"])` picks some."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "uvloop": uvloop.new_event_loop,
        "asyncio": asyncio.new_event_loop,
    }
    if sys.version_info >= (3, 12):
        factories["eager"] = _eager_loop
    return factories


# ----------------------------------------------------------------------------------------------------------- a server


class Serve(Protocol):
    async def __call__(self, server: S, **listening: Any) -> S: ...


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`server = await serve(Server(), **listening)`: started on 127.0.0.1, port 0; stopped when the test ends."""
    started: list[Server[Any]] = []

    async def start(server: S, **listening: Any) -> S:
        await server.start(0, **listening)
        started.append(server)
        return server

    yield start
    for server in reversed(started):
        await server.stop()
        assert not list(server.connections), "connections were open after stop()"


# ---------------------------------------------------------------------------------------------------------- a client


class Connect(Protocol):
    async def __call__(self, server: Server[Any], path: str = "/", **options: Any) -> ClientConnection: ...


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """`client = await connect(server, path="/", **options of websockets.connect)`; closed when the test ends."""
    async with AsyncExitStack() as clients:

        async def open_client(server: Server[Any], path: str = "/", **options: Any) -> ClientConnection:
            address = _address(server)
            options = {"ping_interval": None, "proxy": None, "open_timeout": None, "close_timeout": 5} | options
            scheme = "wss" if options.get("ssl") else "ws"
            if isinstance(address, str):
                uri = f"{scheme}://localhost{path}"
                return await clients.enter_async_context(websockets_connect(uri, unix=True, path=address, **options))
            host = f"[{address[0]}]" if ":" in address[0] else address[0]
            return await clients.enter_async_context(
                websockets_connect(f"{scheme}://{host}:{address[1]}{path}", **options)
            )

        yield open_client


def _address(server: Server[Any]) -> tuple[str, int] | str:
    address = server.addresses[0]
    return address if isinstance(address, str) else (address[0], address[1])


# ------------------------------------------------------------------------------------------------------- a raw client


class Raw(Protocol):
    async def __call__(
        self,
        server: Server[Any],
        *,
        ssl: tls.SSLContext | None = None,
        receive_buffer: int | None = None,
        send_buffer: int | None = None,
    ) -> Peer: ...


@pytest.fixture
async def raw() -> AsyncIterator[Raw]:
    """`peer = await raw(server)`: a TCP (or Unix, or TLS) connection without a handshake; closed when the test ends.

    `receive_buffer` and `send_buffer` are SO_RCVBUF and SO_SNDBUF: small ones make backpressure come early.
    """
    peers: list[Peer] = []

    async def open_peer(
        server: Server[Any],
        *,
        ssl: tls.SSLContext | None = None,
        receive_buffer: int | None = None,
        send_buffer: int | None = None,
    ) -> Peer:
        address = _address(server)
        if isinstance(address, str):
            family = socket.AF_UNIX
        else:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if send_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=ssl, server_hostname="localhost" if ssl else None, limit=1 << 16
            )
        except BaseException:
            sock.close()
            raise
        peers.append(Peer(reader, writer))
        return peers[-1]

    yield open_peer
    for peer in peers:
        await peer.close()


# ---------------------------------------------------------------------------------------------------------- the guards


class _ErrorRecords(logging.Handler):
    """Collects what is logged at ERROR or above, by whomever."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def _error_records() -> Iterator[list[logging.LogRecord]]:
    handler = _ErrorRecords()
    logging.getLogger().addHandler(handler)
    yield handler.records
    logging.getLogger().removeHandler(handler)


@pytest.fixture
def expected_errors(_error_records: list[logging.LogRecord]) -> list[logging.LogRecord]:
    """The ERROR records logged so far, for a test that expects some; that none came at all fails it."""
    return _error_records


@pytest.fixture(autouse=True)
def _guards(request: pytest.FixtureRequest, _error_records: list[logging.LogRecord]) -> Iterator[None]:
    """Set up before every other fixture, so that it looks when all others have been torn down."""
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("_loop_guards")
    children = _children()
    yield
    assert _children() <= children, "a child process is left"
    if "expected_errors" in request.fixturenames:
        assert _error_records, "expected_errors: nothing was logged at ERROR"
    else:
        logged = [logging.Formatter().format(record) for record in _error_records]
        assert not logged, "logged at ERROR, unexpectedly:\n" + "\n".join(logged)


@pytest.fixture
async def _loop_guards(_descriptor_guard: None) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: complaints.append(context))
    yield
    for _ in range(TURNS):
        await asyncio.sleep(0)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    assert not complaints, f"the loop's exception handler was called: {complaints}"
    assert not tasks, f"tasks are left: {tasks}"


TURNS = 10  # of the loop, not time: a closed transport calls connection_lost and gives its descriptor back some later


@pytest_asyncio.fixture  # type: ignore[type-var]  # typed for coroutines alone; a generator waits for the loop just so
def _descriptor_guard() -> Iterator[None]:
    """Compares while the loop exists and stands still: uvloop opens a socket pair each time that it starts to run."""
    before = _descriptors()
    yield
    opened = [target for number, target in _descriptors().items() if before.get(number) != target]
    assert not opened, f"descriptors are left: {opened}"


def _descriptors() -> dict[int, str]:
    """Return this process's open descriptors and what they are; sockets carry their inode, so a reuse shows."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir() if sys.platform == "linux" else ():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue  # that of this very listing
        if target != "/dev/null":  # libuv holds one in reserve from its first accept on
            found[int(entry.name)] = target
    return found


def _children() -> set[int]:
    found: set[int] = set()
    for entry in Path("/proc/self/task").glob("*/children"):
        try:
            found.update(map(int, entry.read_text().split()))
        except OSError:
            continue  # a thread that ended meanwhile
    return found
