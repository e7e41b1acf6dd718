"""Connection, driven by hand: what a real socket and a real clock show by luck only.

The transport is recorded, so all goes through `transport.write` as with TLS; the loop is a clock that is told to turn.
"""

from __future__ import annotations

import asyncio
import gc
import random
import struct
import tracemalloc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.apart import MIB, at_most, needs_scarcity, run_apart
from tests.peer import BINARY, CLOSE, PING, TEXT, encode_frame
from tests.recorded import ManualLoop, RecordedTransport
from wsev._core.connection import Connection
from wsev._core.dispatch import Callbacks
from wsev._core.loop import LoopState, ServerState
from wsev._core.writer import deliver, encode_message
from wsev.errors import CallbackError, ConnectionClosed, ProtocolError, SlowConsumer, TimedOut
from wsev.options import Options

RESPONSE = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class TurningLoop(ManualLoop):
    """Calls what `call_soon` was given when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.ready: list[Callable[[], object]] = []

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        self.ready.append(lambda: context.run(callback, *args) if context else callback(*args))
        return SimpleNamespace(cancel=lambda: None)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        return self.call_later(when - self.now, callback, *args)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, **options)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise AssertionError(context)

    def turn(self) -> None:
        """Until nothing is ready."""
        while self.ready:
            ready, self.ready = self.ready, []
            for call in ready:
                call()


class Transport(RecordedTransport):
    """Tells its protocol when it is stuck, as the interface has it; may be asked to pause twice, as asyncio's may.

    `in_write` is called by each write: what may run there, a finalizer or an error.
    """

    def __init__(self, *, is_stuck: bool = False) -> None:
        super().__init__(is_stuck=is_stuck)
        self.in_write: Callable[[], object] = lambda: None

    def write(self, data: Any) -> None:
        self.in_write()
        super().write(data)
        if self.is_stuck and isinstance(self.protocol, Connection):
            self.protocol.pause_writing()

    def pause_reading(self) -> None:
        self.is_reading_now = False

    def resume_reading(self) -> None:
        self.is_reading_now = True


class Hooks:
    """What the core calls upward: kept."""

    def __init__(self) -> None:
        self.is_closed = False
        self.errors: list[CallbackError] = []
        self.exits: list[BaseException] = []

    def opened(self, connection: object) -> None: ...

    def closed(self, connection: object) -> None:
        assert not self.is_closed
        self.is_closed = True

    def callback_failed(self, error: CallbackError) -> None:
        self.errors.append(error)

    def exit(self, error: BaseException) -> None:
        self.exits.append(error)

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


class Driven:
    """One connection and all that it touches."""

    def __init__(self, rest: bytes = b"", *, is_stuck: bool = False, callbacks: Any = None, **options: Any) -> None:
        self.loop = TurningLoop()
        self.state = LoopState.of(self.loop)
        self.hooks = Hooks()
        self.server: Any = ServerState(self.state, self.hooks, Options.of(**options))
        self.transport = Transport(is_stuck=is_stuck)
        self.got: list[object] = []
        self.ends: list[BaseException | None] = []
        given: dict[str, Any] = {
            "on_message": lambda conn, message: self.got.append(message),
            "on_disconnect": lambda conn, error: self.ends.append(error),
        }
        self.conn: Connection[Any] = Connection(
            self.server, Callbacks(**(given | (callbacks or {}))), self.transport, None, None, None
        )
        self.transport.protocol = self.conn
        self.conn.open(RESPONSE, rest)
        self.loop.turn()

    def receive(self, data: bytes) -> None:
        """One read event, or as many as the buffer makes of it."""
        while data:
            buffer = self.conn.get_buffer(-1)
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            self.conn.buffer_updated(size)
            data = data[size:]

    def take_output(self) -> None:
        """The peer reads all that the transport has."""
        self.transport.unsent = 0
        self.transport.is_stuck = False
        self.conn.resume_writing()
        self.loop.turn()

    def lose(self, error: Exception | None = None) -> None:
        self.conn.connection_lost(error)
        self.loop.turn()

    @property
    def sent(self) -> bytes:
        assert self.transport.written.startswith(RESPONSE)
        return self.transport.written[len(RESPONSE) :]


def text(*messages: str) -> bytes:
    return b"".join(encode_frame(TEXT, message.encode()) for message in messages)


def close_frame(code: int) -> bytes:
    """The server's."""
    return bytes([0x80 | CLOSE, 2]) + struct.pack("!H", code)


class Gate:
    """An async on_message that waits at each message until it is let through."""

    def __init__(self, loop: Callable[[], TurningLoop]) -> None:
        self.loop = loop
        self.got: list[object] = []
        self.waiting: asyncio.Future[None] | None = None

    async def __call__(self, conn: Connection[Any], message: object) -> None:
        self.got.append(message)
        self.waiting = asyncio.Future(loop=self.loop())
        await self.waiting

    def let_through(self) -> None:
        assert self.waiting is not None
        self.waiting.set_result(None)
        self.loop().turn()


def gated(**options: Any) -> tuple[Driven, Gate]:
    """A connection whose async on_message waits."""
    found: list[Driven] = []
    gate = Gate(lambda: found[0].loop)
    found.append(Driven(callbacks={"on_message": gate}, **options))
    return found[0], gate


# What is received


def test_messages_that_wait_for_a_callback_survive_output_that_gets_stuck() -> None:
    driven, gate = gated(max_queue=1, high_water=1000)
    driven.receive(text("one", "two", "three", "four"))
    driven.loop.turn()
    assert not driven.transport.is_reading_now  # "three" and "four" are not parsed yet
    driven.transport.is_stuck = True
    driven.conn.send(b"a" * 5000)
    driven.loop.turn()
    driven.take_output()
    for _ in range(4):
        gate.let_through()
    assert gate.got == ["one", "two", "three", "four"]
    assert driven.transport.is_reading_now


def test_a_close_frame_among_what_waited_when_tcp_ended_is_only_remembered() -> None:
    driven, gate = gated(max_queue=1)
    driven.receive(text("one", "two", "three") + encode_frame(CLOSE, struct.pack("!H", 4001) + b"bye"))
    driven.loop.turn()
    driven.lose(ConnectionResetError())
    for _ in range(3):
        gate.let_through()
    assert gate.got == ["one", "two", "three"]
    assert isinstance(driven.ends.pop(), ConnectionResetError)
    assert not driven.ends
    assert (driven.conn.close_code, driven.conn.close_reason) == (4001, "bye")
    assert driven.hooks.is_closed


def test_a_violation_among_what_waited_when_tcp_ended_ends_the_delivery() -> None:
    driven, gate = gated(max_queue=1)
    driven.receive(text("one", "two", "three") + encode_frame(TEXT, b"bad", masked=False) + text("never"))
    driven.loop.turn()
    driven.lose(ConnectionResetError())
    for _ in range(3):
        gate.let_through()
    assert gate.got == ["one", "two", "three"]
    assert len(driven.ends) == 1
    assert driven.hooks.is_closed


def test_congested_when_tcp_ends_still_delivers_what_came_before() -> None:
    driven = Driven(is_stuck=True, high_water=10)
    assert driven.conn.buffered_amount
    driven.receive(text("one", "two") + encode_frame(CLOSE))
    driven.lose(ConnectionResetError())
    assert driven.got == ["one", "two"]
    assert len(driven.ends) == 1


def test_nothing_is_delivered_after_a_callback_raised_though_tcp_had_ended() -> None:
    got: list[object] = []

    async def fail(conn: Connection[Any], message: object) -> None:
        got.append(message)
        await asyncio.wait([waiting])
        raise ValueError(message)

    driven = Driven(callbacks={"on_message": fail}, max_queue=1)
    waiting: asyncio.Future[None] = asyncio.Future(loop=driven.loop)
    driven.receive(text("one", "two", "three"))
    driven.loop.turn()
    driven.lose(ConnectionResetError())
    waiting.set_result(None)
    driven.loop.turn()
    assert got == ["one"]
    assert len(driven.hooks.errors) == 1
    assert len(driven.ends) == 1


def test_a_read_that_brought_nothing_does_not_mislead_the_next() -> None:
    driven = Driven()
    large = encode_frame(BINARY, bytes(range(256)) * 1024)
    driven.receive(large[:100])
    assert len(driven.conn.get_buffer(-1)) > 0  # into the message itself; the kernel had nothing
    driven.receive(large[100:] + text("next"))
    assert driven.got == [bytes(range(256)) * 1024, "next"]


def test_an_ended_connection_keeps_no_unfinished_message() -> None:
    driven = Driven()
    driven.receive(encode_frame(BINARY, bytes(500_000))[:400_000])
    driven.conn.abort()
    driven.lose()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        driven = Driven()
        driven.receive(encode_frame(BINARY, bytes(500_000))[:400_000])
        driven.conn.abort()
        driven.lose()
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()


def test_an_echo_behind_output_that_is_blocked_by_little_throttles_its_peer() -> None:
    driven = Driven(
        callbacks={"on_message": lambda conn, message: conn.send(message)},
        high_water=5000,
        max_buffered_amount=20_000,
    )
    driven.transport.is_stuck = True
    driven.receive(encode_frame(BINARY, bytes(500)))
    for _ in range(100):
        if driven.transport.is_reading_now:
            driven.receive(encode_frame(BINARY, bytes(500)))
    assert driven.conn.is_open
    assert not driven.transport.is_reading_now
    driven.take_output()
    assert driven.transport.is_reading_now


@pytest.mark.parametrize("is_begun", [False, True], ids=["before a frame", "inside a frame"])
@pytest.mark.parametrize("is_published", [False, True], ids=["sent", "published"])
def test_a_slow_consumer_of_large_messages_is_told_1013_behind_a_whole_frame(
    is_begun: bool, is_published: bool
) -> None:
    driven = Driven(max_buffered_amount=100_000, high_water=None)
    conn, first, large = driven.conn, b"small", bytes(90_000)
    driven.transport.is_stuck = True
    if is_begun:
        first = bytes(50_000)  # its header is with the transport, its payload is not
    conn.send(first)
    driven.loop.turn()

    def send() -> bool:
        if is_published:
            return deliver([conn], encode_message(large)) == 1
        return conn.send(large)

    while send():
        driven.loop.turn()
    driven.loop.turn()
    driven.take_output()
    driven.loop.turn()
    assert driven.sent == encode_frame(BINARY, first, masked=False) + close_frame(1013)
    assert not driven.transport.is_aborted
    driven.lose()
    (error,) = driven.ends
    assert isinstance(error, SlowConsumer)


# What fails below it


def raise_it(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("the transport is closed"), ConnectionResetError()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("when", ["flush", "drain", "at the loop's turn", "at the end of its read event"])
def test_a_transport_that_raises_ends_its_connection_with_that_error_and_keeps_no_buffer(
    error: Exception, when: str
) -> None:
    def send(conn: Connection[Any], message: object = None) -> None:
        conn.send("a" * 100)
        conn.send("b" * 10_000)  # another buffer: the first is with the transport when that raises

    driven = Driven(callbacks={"on_message": send}, write_buffer_size=4096)
    driven.transport.in_write = lambda: raise_it(error)
    if when == "at the end of its read event":
        driven.receive(text("m"))
    else:
        send(driven.conn)
        assert driven.state.pool.lent == 2
    if when == "flush":
        driven.conn.flush()
    elif when == "drain":
        with pytest.raises(ConnectionClosed):
            driven.conn.drain().send(None)
    else:
        driven.loop.turn()
    assert (driven.conn.is_open, driven.transport.is_aborted) == (False, True)
    assert (driven.state.pool.lent, driven.conn.buffered_amount) == (0, 0)
    assert driven.conn.send("more") is False
    driven.lose()
    assert driven.ends == [error]


def receive_a_message_without_memory() -> None:
    driven = Driven(max_message_size=None, read_deadline=None)
    other = Driven()
    piece = bytes(256 * 1024)
    driven.receive(struct.pack("!BBQ4x", 0x80 | BINARY, 0xFF, 32 * MIB))  # its header; the mask is zero
    with at_most(4 * MIB):
        for _ in range(32 * MIB // len(piece)):
            driven.receive(piece)
    assert (driven.conn.is_open, driven.transport.is_aborted) == (False, True)
    driven.receive(text("late"))
    driven.lose()
    (error,) = driven.ends
    assert isinstance(error, MemoryError)
    assert driven.got == []
    other.receive(text("m"))
    assert other.got == ["m"]


@pytest.mark.slow
@needs_scarcity
def test_a_message_for_which_there_is_no_memory_ends_its_connection_and_raises_nothing() -> None:
    run_apart(receive_a_message_without_memory)


@pytest.mark.parametrize("missing", ["all", "server", "callbacks", "transport"])
def test_a_connection_is_made_of_all_its_parts_or_not_at_all(missing: str) -> None:
    driven = Driven()
    parts: dict[str, Any] = {"server": driven.server, "callbacks": Callbacks(), "transport": driven.transport}
    arguments: list[Any] = [None if name == missing else part for name, part in parts.items()]
    with pytest.raises(TypeError):
        Connection.__new__(Connection, *([] if missing == "all" else [*arguments, None, None, None]))


# The clocks


def test_a_close_without_an_answer_is_reset_after_close_timeout() -> None:
    driven = Driven(close_timeout=5.0)
    driven.conn.close(1000)
    driven.loop.turn()
    assert driven.sent == close_frame(1000)
    driven.loop.pass_time(4.9)
    assert not driven.transport.is_aborted
    driven.loop.pass_time(5.0 * 0.25 + 0.1)
    assert driven.transport.is_aborted
    driven.lose()
    (error,) = driven.ends
    assert isinstance(error, TimedOut)
    assert error.kind == "close"


def test_a_failed_connection_whose_peer_stays_is_reset_a_second_later() -> None:
    driven = Driven(close_timeout=5.0)
    driven.receive(encode_frame(TEXT, b"x", masked=False))
    driven.loop.turn()
    assert driven.sent == close_frame(1002)
    assert driven.transport.has_eof
    driven.loop.pass_time(1.0 + 0.6)
    assert driven.transport.is_aborted
    driven.lose()
    (error,) = driven.ends
    assert isinstance(error, ProtocolError)


def test_a_failed_connection_whose_output_is_stuck_is_reset_after_close_timeout() -> None:
    driven = Driven(is_stuck=True, close_timeout=5.0)
    driven.receive(encode_frame(TEXT, b"x", masked=False))
    driven.loop.turn()
    driven.loop.pass_time(5.0 * 1.25 + 0.1)
    assert driven.transport.is_aborted


def test_an_answered_close_does_not_begin_a_second_close_timeout() -> None:
    driven = Driven(is_stuck=True, close_timeout=5.0)
    driven.conn.close(1000)
    driven.loop.turn()
    driven.loop.pass_time(4.0)
    driven.receive(encode_frame(CLOSE, struct.pack("!H", 1000)))
    driven.loop.turn()
    driven.loop.pass_time(1.0 + 5.0 * 0.25 + 0.1)
    assert driven.transport.is_aborted


def test_control_frames_are_counted_by_time_also_without_any_timeout() -> None:
    driven = Driven(idle_timeout=None, read_deadline=None, write_timeout=None, max_control_rate=100)
    for _ in range(5):
        driven.receive(encode_frame(PING) * 500)
        driven.loop.turn()
        driven.loop.pass_time(10.0)
    assert driven.conn.is_open


def test_output_that_is_stuck_before_anything_was_sent_counts_for_write_timeout() -> None:
    driven = Driven(write_timeout=1.0, idle_timeout=2.0)
    driven.conn.pause_writing()
    driven.loop.pass_time(10.0)
    assert not driven.conn.is_open


# The states


ENDS: dict[str, Callable[[Driven], object]] = {
    "close": lambda driven: driven.conn.close(),
    "abort": lambda driven: driven.conn.abort(),
    "lost": lambda driven: driven.conn.connection_lost(None),
    "reset": lambda driven: driven.conn.connection_lost(ConnectionResetError()),
    "eof": lambda driven: driven.conn.eof_received(),
    "Close": lambda driven: driven.receive(encode_frame(CLOSE)),
    "violation": lambda driven: driven.receive(encode_frame(TEXT, b"x", masked=False)),
    "messages": lambda driven: driven.receive(text("a", "b", "c")),
    "raise": lambda driven: driven.receive(text("raise")),
    "stuck": lambda driven: setattr(driven.transport, "is_stuck", True),
    "send": lambda driven: driven.conn.send(b"a" * 30_000),
    "freed": lambda driven: driven.take_output() if driven.transport.is_stuck else None,
    "time": lambda driven: driven.loop.pass_time(1.0),
    "long": lambda driven: driven.loop.pass_time(100.0),
    "cancel": lambda driven: driven.conn._cancel(),
    "turn": lambda driven: driven.loop.turn(),
}


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_whatever_happens_in_whatever_order_it_ends_once(seed: int, is_async: bool) -> None:
    chance = random.Random(seed)

    def on_message(conn: Connection[Any], message: object) -> Any:
        if message == "raise":
            raise ValueError(message)
        ENDS[chance.choice(["close", "abort", "send", "stuck", *["stuck"] * 5])](driven)
        return asyncio.sleep(0) if is_async and chance.random() < 0.7 else None

    for _ in range(20):
        driven = Driven(callbacks={"on_message": on_message}, max_queue=2, high_water=10_000, close_timeout=2.0)
        steps = chance.choices(list(ENDS), k=chance.randrange(2, 12))
        for step in steps:
            if not driven.transport.is_reading_now and step in ("Close", "violation", "messages", "raise", "eof"):
                continue  # the transport brings nothing while it is paused
            if driven.hooks.is_closed:
                break
            ENDS[step](driven)
        driven.loop.turn()
        driven.conn.abort()
        driven.conn.connection_lost(None)
        driven.loop.turn()
        assert len(driven.ends) == 1, steps
        assert driven.hooks.is_closed, steps
        assert driven.state.pool.lent == 0, steps
        assert not driven.server.connections
        assert not driven.server.leaving


# A loop that ends with connections open


@pytest.mark.parametrize("what", ["idle", "backlog", "unsent", "scheduled", "unfinished"])
def test_a_loop_that_is_dropped_takes_its_open_connections_along(what: str) -> None:
    driven = Driven(high_water=10)
    if what in ("backlog", "unsent"):
        driven.transport.is_stuck = True
        driven.conn.send(b"a" * 1000)
        driven.loop.turn()
        driven.conn.send(b"a" * 1000)
        if what == "backlog":
            driven.conn.state = driven.conn
            driven.receive(text("one", "two"))
    elif what == "scheduled":
        driven.conn.send(b"a")
    else:
        driven.receive(encode_frame(BINARY, bytes(100_000))[:50_000])
    connection = weakref.ref(driven.conn)
    loop = weakref.ref(driven.loop)
    del driven
    gc.collect()
    assert connection() is None
    assert loop() is None
