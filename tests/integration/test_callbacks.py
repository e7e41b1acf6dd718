"""What callbacks can rely on: their order, one at a time, what they return and raise, and who calls them."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest

import wsev
from tests.conftest import Connect, Raw, Serve
from tests.gate import Gate
from tests.peer import BINARY, CLOSE, PING, PONG, TEXT, encode_frame, upgrade_request

Server = wsev.Server[Any]
Conn = wsev.Connection[Any]


def record(server: Server, log: list[Any], kind: Callable[[str], str]) -> asyncio.Future[None]:
    """Register every callback; each one writes when it begins and when it ends.  The future is on_disconnect's end."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def register(name: str) -> None:
        def begun(*arguments: Any) -> str:
            label = f"{name} {arguments[-1]!r}" if name not in ("on_connect", "on_drain") else name
            log.append(f"{label} begins")
            return label

        def done(label: str) -> None:
            log.append(f"{label} ends")
            if name == "on_disconnect":
                ended.set_result(None)

        def plain(*arguments: Any) -> None:
            done(begun(*arguments))

        async def coroutine(*arguments: Any) -> None:
            plain(*arguments)

        async def suspending(*arguments: Any) -> None:
            label = begun(*arguments)
            await asyncio.sleep(0)
            done(label)

        by_kind: dict[str, Callable[..., Any]] = {"def": plain, "async def": coroutine, "suspending": suspending}
        callback = by_kind[kind(name)]
        if name == "on_connect":
            getattr(server, name)(lambda conn: callback(conn))
        elif name == "on_disconnect":
            server.on_disconnect(lambda conn, error: callback(conn, error))
        else:
            getattr(server, name)(lambda conn, payload: callback(conn, payload))

    for name in ("on_connect", "on_text", "on_binary", "on_ping", "on_pong", "on_disconnect"):
        register(name)
    return ended


KINDS: dict[str, Callable[[str], str]] = {
    "all plain": lambda name: "def",
    "all async": lambda name: "async def",
    "all suspending": lambda name: "suspending",
    "messages suspending": lambda name: "suspending" if name in ("on_text", "on_binary") else "def",
    "on_connect suspending": lambda name: "suspending" if name == "on_connect" else "async def",
    "controls suspending": lambda name: "suspending" if name in ("on_ping", "on_pong") else "def",
}


# In order, one at a time.


@pytest.mark.parametrize("split", ["with the request", "in one packet", "byte by byte"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_callbacks_come_one_at_a_time_in_the_order_of_the_events(
    serve: Serve, raw: Raw, kind: Callable[[str], str], split: str
) -> None:
    server: Server = wsev.Server()
    log: list[str] = []
    ended = record(server, log, kind)
    peer = await raw(await serve(server))
    frames = b"".join(
        [
            encode_frame(TEXT, b"a"),
            encode_frame(BINARY, b"b"),
            encode_frame(PING, b"c"),
            encode_frame(TEXT, b"d", fin=False),
            encode_frame(PONG, b"e"),
            encode_frame(0, b"f"),
            encode_frame(CLOSE, b"\x03\xe8"),
        ]
    )
    if split == "with the request":
        await peer.send(upgrade_request() + frames)
        assert (await peer.read_head()).status == 101
    else:
        await peer.upgrade()
        for piece in [frames] if split == "in one packet" else [bytes([byte]) for byte in frames]:
            await peer.send(piece)
    await ended
    events = [
        "on_connect",
        "on_text 'a'",
        "on_binary b'b'",
        "on_ping b'c'",
        "on_pong b'e'",
        "on_text 'df'",
        "on_disconnect None",
    ]
    assert log == [f"{event} {step}" for event in events for step in ("begins", "ends")]


async def test_a_suspended_callback_holds_back_the_later_events_of_its_connection(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    gate = Gate()
    server.on_message(gate)
    server.on_ping(lambda conn, payload: gate.begun.append("ping"))
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    server.on_disconnect(lambda conn, error: ended.set_result(None))
    peer = await raw(await serve(server))
    await peer.upgrade()
    await peer.send_frame(TEXT, b"first")
    await peer.send_frame(TEXT, b"second")
    await peer.fence()
    assert gate.begun == ["first"]
    gate.open()
    await peer.send_close()
    await ended
    assert gate.begun == ["first", "second", "ping"]


async def test_a_suspended_callback_holds_back_no_other_connection(serve: Serve, connect: Connect) -> None:
    server: Server = wsev.Server()
    gate = Gate("wait")
    server.on_message(gate)
    await serve(server)
    waiting, other = await connect(server), await connect(server)
    await waiting.send("wait")
    await waiting.send("after it")
    for message in ("one", "two"):
        await other.send(message)
        assert await other.recv() == message
    gate.open()
    assert [await waiting.recv(), await waiting.recv()] == ["wait", "after it"]


async def test_messages_wait_for_an_on_connect_that_suspends(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    gate = Gate()

    @server.on_connect
    async def joined(conn: Conn) -> None:
        await gate.wait()
        conn.state = "known"

    server.on_text(lambda conn, message: conn.send(f"{message} {conn.state}"))
    peer = await raw(await serve(server))
    await peer.upgrade()
    await peer.send_frame(TEXT, b"I am")
    assert await peer.fence() == []
    gate.open()
    await peer.expect_frame(TEXT, b"I am known")


async def test_a_ping_and_a_close_are_answered_while_a_callback_is_suspended(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    gate = Gate()
    log: list[Any] = []
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @server.on_message
    async def said(conn: Conn, message: Any) -> None:
        await gate.wait()
        log.append((message, conn.is_open, conn.send("too late")))

    @server.on_disconnect
    def left(conn: Conn, error: Exception | None) -> None:
        log.append(error)
        ended.set_result(None)

    peer = await raw(await serve(server))
    await peer.upgrade()
    await peer.send_frame(TEXT, b"first")
    await peer.send_frame(TEXT, b"second")
    await peer.send_frame(PING, b"?")
    await peer.expect_frame(PONG, b"?")
    await peer.send_close(3001)
    await peer.expect_close(3001)
    assert log == []
    gate.open()
    await ended
    assert log == [("first", False, False), ("second", False, False), None]


@pytest.mark.parametrize(
    ("options", "is_held"),
    [
        pytest.param({"max_queue": 2}, True, id="max_queue is full"),
        pytest.param({"max_queue": 3}, False, id="max_queue has room"),
        pytest.param({"max_queue": None}, False, id="no limit"),
        pytest.param({"max_message_size": 10}, True, id="max_message_size bytes wait"),
        pytest.param({"max_message_size": 13}, False, id="fewer bytes wait"),
    ],
)
async def test_reading_pauses_while_the_queue_behind_a_suspended_callback_is_full_and_resumes(
    serve: Serve, raw: Raw, options: Any, is_held: bool
) -> None:
    server: Server = wsev.Server(**options)
    gate = Gate("first.")
    server.on_message(gate)
    await serve(server)
    peer, other = await raw(server), await raw(server)
    await peer.upgrade()
    await other.upgrade()
    frames = [encode_frame(TEXT, word) for word in (b"first.", b"second", b"third.")]
    await peer.send(b"".join([*frames, encode_frame(PING, b"?"), encode_frame(TEXT, b"last")]))
    await other.fence()  # what the first sent is in the server's socket since before this
    gate.open()
    received = [(await peer.read_frame()).payload for _ in range(5)]
    texts = [payload for payload in received if payload != b"?"]
    assert texts == [b"first.", b"second", b"third.", b"last"]
    # A ping that is read is answered at once, before the gate opens.
    assert (received.index(b"?") > 0) is is_held


async def test_frames_that_come_while_reading_is_paused_are_delivered_in_order(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server(max_queue=1)
    gate = Gate()
    server.on_message(gate)
    await serve(server)
    peer, other = await raw(server), await raw(server)
    await peer.upgrade()
    await other.upgrade()
    words = [b"%d" % number for number in range(20)]
    for word in words:
        await peer.send_frame(TEXT, word)
        await other.fence()
    gate.open()
    assert [(await peer.read_frame()).payload for _ in words] == words


async def test_max_queue_counts_for_one_connection_only(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server(max_queue=1)
    gate = Gate()
    server.on_message(gate)
    await serve(server)
    full, other = await raw(server), await raw(server)
    await full.upgrade()
    await other.upgrade()
    await full.send(encode_frame(TEXT, b"x") * 10)
    await other.send_frame(TEXT, b"x")
    assert await other.fence() == []
    gate.open()
    assert await full.fence() == [(True, TEXT, b"x")] * 10


# From the loop only.

CALLS: dict[str, Callable[[Server, Conn], object]] = {
    "close": lambda server, conn: conn.close(),
    "abort": lambda server, conn: conn.abort(),
    "send": lambda server, conn: conn.send("m"),
    "ping": lambda server, conn: conn.ping(),
    "flush": lambda server, conn: conn.flush(),
    "subscribe": lambda server, conn: conn.subscribe("room"),
    "conn.publish": lambda server, conn: conn.publish("room", "m"),
    "server.publish": lambda server, conn: server.publish("room", "m"),
    "broadcast": lambda server, conn: server.broadcast("m"),
    "send past max_buffered_amount": lambda server, conn: [conn.send(b"\0" * 5_000_000) for _ in range(3)],
    "publish past max_buffered_amount": lambda server, conn: [
        server.publish("all", b"\0" * 5_000_000) for _ in range(3)
    ],
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_no_callback_runs_inside_a_call_of_the_users(
    serve: Serve, raw: Raw, call: Callable[[Server, Conn], object]
) -> None:
    server: Server = wsev.Server()
    depth = 0
    deepest: list[int] = []

    def called(*arguments: Any) -> None:
        nonlocal depth
        deepest.append(depth)

    server.on_connect(lambda conn: conn.subscribe("all"))

    @server.on_message
    def said(conn: Conn, message: Any) -> None:
        nonlocal depth
        called()
        depth += 1
        for each in server.connections:
            call(server, each)
        depth -= 1

    server.on_disconnect(lambda conn, error: called())
    server.on_drain(lambda conn: called())
    server.on_pong(lambda conn, payload: called())
    await serve(server)
    peers = [await raw(server) for _ in range(3)]
    for peer in peers:
        await peer.upgrade()
        await peer.fence()
    connections = list(server.connections)
    await peers[0].send(encode_frame(TEXT, b"go") + encode_frame(TEXT, b"again"))
    outside = await raw(server)
    await outside.upgrade()
    await outside.fence()
    depth += 1
    for conn in connections:  # from outside a callback
        call(server, conn)
    depth -= 1
    for peer in peers:
        peer.reset()
    for conn in connections:
        await conn.wait_closed()
    assert set(deepest) == {0}


# Exceptions.


def raising(kind: str, error: BaseException) -> Callable[..., Any]:
    def plain(*arguments: Any) -> None:
        raise error

    async def coroutine(*arguments: Any) -> None:
        raise error

    async def suspended(*arguments: Any) -> None:
        await asyncio.sleep(0)
        raise error

    def future(*arguments: Any) -> asyncio.Future[None]:
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if isinstance(error, asyncio.CancelledError):
            failed.cancel()
        else:
            failed.set_exception(error)
        return failed

    kinds: dict[str, Callable[..., Any]] = {
        "def": plain,
        "async def": coroutine,
        "suspended": suspended,
        "future": future,
    }
    return kinds[kind]


def register(server: Server, name: str, callback: Callable[..., Any]) -> None:
    """Register a callback of any parameters under a name of one or two."""
    if name == "on_connect":
        server.on_connect(lambda conn: callback(conn))
    else:
        getattr(server, name)(lambda conn, argument: callback(conn, argument))


RAISING_KINDS = ("def", "async def", "suspended", "future")


@pytest.mark.parametrize("kind", RAISING_KINDS)
@pytest.mark.parametrize("name", ["on_connect", "on_message", "on_text", "on_binary", "on_ping", "on_pong"])
async def test_what_a_callback_raises_ends_its_connection_with_1011_and_is_told(
    serve: Serve, raw: Raw, expected_errors: list[logging.LogRecord], name: str, kind: str
) -> None:
    server: Server = wsev.Server()
    cause = LookupError("no such room")
    told: list[tuple[Any, bool]] = []
    ended: asyncio.Future[tuple[Conn, Any]] = asyncio.get_running_loop().create_future()
    register(server, name, raising(kind, cause))
    server.on_error(lambda error, is_fatal: told.append((error, is_fatal)))
    server.on_disconnect(lambda conn, error: ended.set_result((conn, error)))
    peer = await raw(await serve(server))
    await peer.upgrade()
    opcode = {"on_connect": BINARY, "on_message": TEXT, "on_text": TEXT, "on_binary": BINARY, "on_ping": PING}
    await peer.send_frame(opcode.get(name, PONG), b"payload")
    if name == "on_ping":
        await peer.expect_frame(PONG, b"payload")
    await peer.expect_close(1011)
    await peer.close()
    conn, error = await ended
    assert (conn.close_code, conn.is_open) == (1011, False)
    assert told == [(error, False)]
    assert isinstance(error, wsev.CallbackError)
    assert (error.callback, error.connection, error.__cause__) == (name, conn, cause)
    (logged,) = expected_errors
    assert logged.exc_info is not None
    assert logged.exc_info[1] is cause


@pytest.mark.parametrize("kind", RAISING_KINDS)
async def test_what_on_disconnect_raises_is_logged_and_that_is_all(
    serve: Serve, raw: Raw, expected_errors: list[logging.LogRecord], kind: str
) -> None:
    server: Server = wsev.Server()
    told: list[Exception] = []
    cause = LookupError("no such room")
    register(server, "on_disconnect", raising(kind, cause))
    server.on_error(lambda error, is_fatal: told.append(error))
    peer = await raw(await serve(server))
    await peer.upgrade()
    await peer.send_close()
    await peer.expect_close(1000)
    await server.stop()
    (logged,) = expected_errors
    assert logged.exc_info is not None
    assert logged.exc_info[1] is cause
    assert told == []


@pytest.mark.parametrize("kind", RAISING_KINDS)
async def test_cancelled_error_ends_a_callback_silently(serve: Serve, raw: Raw, kind: str) -> None:
    server: Server = wsev.Server()
    cancelled = raising(kind, asyncio.CancelledError())
    server.on_message(lambda conn, message: cancelled() if message == "cancel" else conn.send(message))
    peer = await raw(await serve(server))
    await peer.upgrade()
    for message in (b"cancel", b"one", b"cancel", b"two"):
        await peer.send_frame(TEXT, message)
    await peer.expect_frame(TEXT, b"one")
    await peer.expect_frame(TEXT, b"two")


@pytest.mark.parametrize("kind", ["def", "async def", "suspended"])
async def test_connection_closed_ends_a_callback_silently(serve: Serve, raw: Raw, kind: str) -> None:
    server: Server = wsev.Server()
    closed = raising(kind, wsev.ConnectionClosed(1006))
    server.on_message(lambda conn, message: closed() if message == "closed" else conn.send(message))
    peer = await raw(await serve(server))
    await peer.upgrade()
    await peer.send_frame(TEXT, b"closed")
    await peer.send_frame(TEXT, b"one")
    await peer.expect_frame(TEXT, b"one")


async def test_drain_after_the_end_ends_its_callback_silently(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    log: list[Any] = []

    @server.on_message
    async def said(conn: Conn, message: Any) -> None:
        conn.close()
        try:
            await conn.drain()
        except wsev.ConnectionClosed as error:
            log.append(error.close_code)
            raise

    server.on_error(lambda error, is_fatal: log.append(error))
    peer = await raw(await serve(server))
    await peer.upgrade()
    await peer.send_frame(TEXT, b"m")
    frame = await peer.read_frame()
    assert (frame.opcode, frame.payload) == (CLOSE, b"\x03\xe8")
    await peer.send_close()
    await peer.read_eof()
    assert log == [1000]


async def test_a_task_of_a_callback_that_is_cancelled_ends_that_message_only(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    running: list[asyncio.Task[Any]] = []
    log: list[str] = []

    @server.on_message
    async def said(conn: Conn, message: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.append(task)
        if message == "cancel me":
            try:
                await asyncio.Event().wait()
            finally:
                log.append("cancelled")
        conn.send(message)

    peer = await raw(await serve(server))
    await peer.upgrade()
    await peer.send_frame(TEXT, b"cancel me")
    await peer.send_frame(TEXT, b"next")
    assert await peer.fence() == []
    running[0].cancel()
    await peer.expect_frame(TEXT, b"next")
    assert log == ["cancelled"]


async def test_an_error_in_one_connection_leaves_the_others_alone(
    serve: Serve, raw: Raw, expected_errors: list[logging.LogRecord]
) -> None:
    server: Server = wsev.Server()
    server.on_message(lambda conn, message: conn.send(str(1 // int(message))))
    await serve(server)
    failing, other = await raw(server), await raw(server)
    await failing.upgrade()
    await other.upgrade()
    await failing.send_frame(TEXT, b"0")
    await failing.expect_close(1011)
    await other.send_frame(TEXT, b"1")
    await other.expect_frame(TEXT, b"1")


async def test_after_an_exception_nothing_more_is_delivered(
    serve: Serve, raw: Raw, expected_errors: list[logging.LogRecord]
) -> None:
    server: Server = wsev.Server()
    log: list[str] = []
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @server.on_message
    async def said(conn: Conn, message: Any) -> None:
        log.append(message)
        await asyncio.sleep(0)
        raise LookupError(message)

    server.on_disconnect(lambda conn, error: ended.set_result(None))
    peer = await raw(await serve(server))
    await peer.upgrade()
    await peer.send(encode_frame(TEXT, b"first") + encode_frame(TEXT, b"queued") + encode_frame(BINARY, b"too"))
    await peer.expect_close(1011)
    await peer.close()
    await ended
    assert log == ["first"]


# Return values.


class Thenable:
    """An awaitable that is neither a coroutine nor a future."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._gate.wait().__await__()


class CallableObject:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def __call__(self, conn: Conn, message: Any) -> None:
        await self._gate.wait()

    async def method(self, conn: Conn, message: Any) -> None:
        await self._gate.wait()


async def _wait(gate: Gate, conn: Conn, message: Any) -> None:
    await gate.wait()


def _future(gate: Gate) -> Awaitable[object]:
    return asyncio.ensure_future(gate.wait())


AWAITED: dict[str, Callable[[Gate], Callable[[Conn, str], object]]] = {
    "a coroutine of a lambda": lambda gate: lambda conn, message: gate.wait(),
    "a partial": lambda gate: functools.partial(_wait, gate),
    "a future": lambda gate: lambda conn, message: _future(gate),
    "an object with __await__": lambda gate: lambda conn, message: Thenable(gate),
    "a callable object": CallableObject,
    "a bound method": lambda gate: CallableObject(gate).method,
    "a gathering": lambda gate: lambda conn, message: asyncio.gather(gate.wait(), gate.wait()),
}


@pytest.mark.parametrize("make", AWAITED.values(), ids=AWAITED)
async def test_an_awaitable_that_a_callback_returns_is_awaited(
    serve: Serve, raw: Raw, make: Callable[[Gate], Callable[[Conn, str], object]]
) -> None:
    server: Server = wsev.Server()
    gate = Gate()
    server.on_text(make(gate))
    server.on_binary(lambda conn, message: conn.send(message))
    peer = await raw(await serve(server))
    await peer.upgrade()
    await peer.send_frame(TEXT, b"waits")
    await peer.send_frame(BINARY, b"after it")
    assert await peer.fence() == []
    gate.open()
    await peer.expect_frame(BINARY, b"after it")


@pytest.mark.parametrize(
    "value", [None, True, False, 0, "text", b"bytes", [1], {}, object(), ValueError("not raised"), StopIteration(1)]
)
async def test_any_other_value_that_a_callback_returns_is_ignored(serve: Serve, raw: Raw, value: object) -> None:
    server: Server = wsev.Server()
    log: list[Any] = []

    def returning(name: str) -> Callable[..., object]:
        def callback(*arguments: Any) -> object:
            log.append(name)
            return value

        return callback

    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def left(conn: Conn, error: Exception | None) -> object:
        ended.set_result(None)
        return value

    for name in ("on_connect", "on_message", "on_ping", "on_pong"):
        register(server, name, returning(name))
    server.on_disconnect(left)
    peer = await raw(await serve(server))
    await peer.upgrade()
    await peer.send_frame(TEXT, b"m")
    await peer.send_frame(PONG)
    assert await peer.fence() == []
    await peer.send_close()
    await peer.expect_close(1000)
    await ended
    assert log == ["on_connect", "on_message", "on_pong", "on_ping"]


async def test_text_and_binary_go_to_their_own_callbacks(serve: Serve, connect: Connect) -> None:
    server: Server = wsev.Server()
    server.on_text(lambda conn, message: conn.send(f"text {message!r}"))
    server.on_binary(lambda conn, message: conn.send(f"binary {message!r}"))
    client = await connect(await serve(server))
    await client.send("é")
    await client.send(b"\xff")
    assert [await client.recv(), await client.recv()] == ["text 'é'", "binary b'\\xff'"]


async def test_without_decode_text_text_is_bytes(serve: Serve, connect: Connect) -> None:
    server: Server = wsev.Server(decode_text=False)
    server.on_message(lambda conn, message: conn.send(message, text=True))
    client = await connect(await serve(server))
    await client.send("é")
    assert await client.recv() == "é"


# In an async callback.


async def test_an_async_callback_is_a_task_like_any_other(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()
    room: contextvars.ContextVar[str] = contextvars.ContextVar("room", default="none")
    log: list[Any] = []

    @server.on_message
    async def said(conn: Conn, message: Any) -> None:
        token = room.set(message)
        log.append(asyncio.current_task() is not None)
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            log.append("timeout")
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_get(room))
        log.append(task.result())
        room.reset(token)
        conn.send("done")

    peer = await raw(await serve(server))
    await peer.upgrade()
    for message in (b"a", b"b"):
        await peer.send_frame(TEXT, message)
        await peer.expect_frame(TEXT, b"done")
    assert log == [True, "timeout", "a", True, "timeout", "b"]


async def _get(variable: contextvars.ContextVar[str]) -> str:
    await asyncio.sleep(0)
    return variable.get()


async def test_a_callback_may_close_another_connection(serve: Serve, raw: Raw) -> None:
    server: Server = wsev.Server()

    @server.on_message
    def said(conn: Conn, message: Any) -> None:
        for each in server.connections:
            if each is not conn:
                each.close(3000, "asked to")

    await serve(server)
    one, two, other = [await raw(server) for _ in range(3)]
    for peer in (one, two, other):
        await peer.upgrade()
        await peer.fence()
    await one.send_frame(TEXT, b"go")
    for peer in (two, other):
        frame = await peer.read_frame()
        assert (frame.opcode, frame.payload) == (CLOSE, b"\x0b\xb8asked to")
    assert await one.fence() == []
