"""The life of one connection under random callbacks: what they do, what they were called for, what they could rely on.

A Life is its connection's state, so that CALLBACKS serve any number of connections, on sockets or driven by hand.
Who plays the peer says what it sent and how it ended; `check()` holds the callbacks' record against that.
All chance is one seeded generator; where callbacks wait, and for how long, is the caller's.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import wsev

Conn = wsev.Connection[Any]
Event = tuple[str, str | bytes | None]  # such as ("text", "7"), ("ping", b"8")

ENDS = ("close", "abort", "raise", "close and raise", "task raises", "close another", "abort another")

# What on_disconnect may be given, in words; the first that fits
REASONS: dict[str, tuple[type[BaseException], ...]] = {
    "abort": (ConnectionAbortedError,),
    "lost": (OSError,),
    "violation": (wsev.ProtocolError,),
    "raise": (wsev.CallbackError,),
}


def reason_of(error: BaseException | None) -> str:
    """In the words of REASONS; "clean": both Close frames were exchanged."""
    if error is None:
        return "clean"
    return next((word for word, types in REASONS.items() if isinstance(error, types)), type(error).__name__)


class Refused(Exception):
    """What callbacks and tasks raise on purpose."""


class Deferred:
    """An awaitable that is no coroutine."""

    def __init__(self, coroutine: Generator[Any, Any, None]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, None]:
        return self._coroutine


class Life:
    """One connection's callbacks.

    Args:
        number: whose it is; in what it sends, too.
        ends: what the callback of the event of that number does to end its connection, or another's; ENDS.
        suspend: where callbacks and tasks wait.
        wait_for_ever: where they wait until they are cancelled.
    """

    def __init__(
        self,
        number: int,
        chance: random.Random,
        suspend: Callable[[], Awaitable[object]],
        wait_for_ever: Callable[[], Awaitable[object]],
        ends: dict[int, str],
    ) -> None:
        self.number = number
        self.sent: list[Event] = []  # by the peer, whole
        self.got: list[Event] = []  # by the callbacks, on_connect first
        self.taken: list[str] = []  # replies, by send()
        self.raised: list[Refused] = []
        self.errors: list[BaseException | None] = []  # what on_disconnect was given
        self.over = asyncio.Event()  # on_disconnect has ended
        self.another: Life = self
        self.conn: Conn | None = None
        self.first: str | None = None  # what of ours ended the connection while it was open
        self.stopped: str | None = None  # what of ours stopped the delivery
        self.has_aborted = False
        self._chance = chance
        self._suspend = suspend
        self._wait_for_ever = wait_for_ever
        self._ends = ends
        self._running: str | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._late: list[str] = []  # what was delivered when the connection was not open any more
        self._faults: list[str] = []

    # The callbacks.

    def called(self, conn: Conn, kind: str, payload: Any = None) -> Awaitable[None] | None:
        """Be the callback of any event but the last."""
        self.conn = conn
        self._begin(f"{kind} {payload!r}")
        if kind != "drain":
            self.got.append((kind, payload))
            if not conn.is_open:
                self._late.append(f"{kind} {payload!r}")
        return self._perform(lambda: self._act(conn))

    def ended(self, conn: Conn, error: BaseException | None) -> Awaitable[None] | None:
        """Be on_disconnect."""
        self._begin("on_disconnect")
        self.errors.append(error)
        self._expect(not conn.is_open, "open in on_disconnect")
        self._expect(not conn.send("too late"), "on_disconnect could send")
        for task in self._tasks:
            self._expect(task.done(), "a task is left when on_disconnect is called")
        return self._perform(lambda: None, self.over.set)

    def _begin(self, what: str) -> None:
        self._expect(self._running is None, f"{what} began while {self._running} was running")
        self._expect(not self.errors, f"{what} after on_disconnect")
        self._expect(what == "on_disconnect" or self.stopped is None, f"{what} after our own {self.stopped}")
        self._running = what

    def _done(self, then: Callable[[], None] | None) -> None:
        self._running = None
        if then is not None:
            then()

    def _expect(self, holds: bool, fault: str) -> None:
        """An assertion would be one more exception of a callback."""
        if not holds:
            self._faults.append(fault)

    def _perform(self, act: Callable[[], None], then: Callable[[], None] | None = None) -> Awaitable[None] | None:
        style = self._chance.choice(("def", "async def", "suspended", "suspended", "awaitable"))
        if style == "def":
            try:
                act()
            finally:
                self._done(then)
            return None
        coroutine = self._run(act, then, suspensions=0 if style == "async def" else self._chance.randint(1, 3))
        return Deferred(coroutine.__await__()) if style == "awaitable" else coroutine

    async def _run(self, act: Callable[[], None], then: Callable[[], None] | None, *, suspensions: int) -> None:
        before = self._chance.randint(0, suspensions)
        try:
            for _ in range(before):
                await self._suspend()
            act()
            for _ in range(suspensions - before):
                await self._suspend()
        except asyncio.CancelledError:
            self._faults.append(f"{self._running} was cancelled")
            raise
        finally:
            self._done(then)

    # What they do.

    def _act(self, conn: Conn) -> None:
        how = self._ends.pop(len(self.got) - 1, None)
        for _ in range(self._chance.randrange(3)):
            self._reply(conn)
        if self._chance.random() < 0.2:
            self._start_task(conn, self._chance.choice((self._end_soon, self._stay, self._die_hard)))
        if how == "close another" and self.another.conn is not None:
            self.another.close(self.another.conn)
        elif how == "abort another" and self.another.conn is not None:
            self.another.abort(self.another.conn)
        elif how == "task raises":
            self._start_task(conn, self._fail_soon)
        elif how == "abort":
            self.abort(conn)
        elif how in ("close", "raise", "close and raise"):
            if how != "raise":
                self.close(conn)
            if how != "close":
                self._stops(conn, "raise")
                raise self._refusal()

    def _reply(self, conn: Conn) -> None:
        reply = f"{self.number}/{len(self.taken)}"
        if conn.send(reply):
            self.taken.append(reply)
        else:
            self._expect(not conn.is_open, "send() took nothing while open")

    def close(self, conn: Conn) -> None:
        """Call close(), and remember that it was called."""
        if conn.is_open:
            self._stops(conn, "close")
        conn.close(3000, f"number {self.number}")

    def abort(self, conn: Conn) -> None:
        """Call abort(), likewise."""
        self.has_aborted = True
        if conn.is_open:
            self._stops(conn, "abort")
        conn.abort()

    def _stops(self, conn: Conn, how: str) -> None:
        self.stopped = self.stopped or how
        if conn.is_open:
            self.first = how

    def _refusal(self) -> Refused:
        self.raised.append(Refused(self.number))
        return self.raised[-1]

    # Their tasks.

    def _start_task(self, conn: Conn, task: Callable[[], Any]) -> None:
        try:
            self._tasks.append(conn.create_task(task()))
        except wsev.ConnectionClosed:
            self._expect(not conn.is_open, "create_task() while open")

    async def _end_soon(self) -> None:
        await self._suspend()

    async def _fail_soon(self) -> None:
        await self._suspend()
        raise self._refusal()

    async def _stay(self) -> None:
        await self._wait_for_ever()

    async def _die_hard(self) -> None:
        try:
            await self._wait_for_ever()
        finally:
            await self._suspend()

    # What they could rely on.

    def check(self, *, ends: set[str], is_all_due: bool) -> None:
        """Hold the record against what the peer did, when all is over.

        Args:
            ends: the reasons, in the words of REASONS, that the peer's doings may lead to.
            is_all_due: all that the peer sent had to be delivered, unless something of ours ended it.
        """
        assert not self._faults, self._faults
        assert len(self.errors) == 1
        reason = reason_of(self.errors[0])
        assert self.got[:1] == [("connect", None)]
        events = self.got[1:]
        assert events == self.sent[: len(events)]
        if is_all_due and self.stopped is None and not self.raised and not self.has_aborted:
            assert events == self.sent, f"only {len(events)} of {len(self.sent)} were delivered: {reason}"
        assert reason in self._reasons(ends), reason
        # Who is called when the connection is not open any more is called for what came before the peer's own end.
        assert not self._late or reason in ("clean", "lost") or self.has_aborted, (reason, self._late)

    def _reasons(self, ends: set[str]) -> set[str]:
        """What on_disconnect may have been given: the first reason stands."""
        if self.first == "abort":
            return {"abort"}
        # A callback that was suspended, or a task, may have raised when the peer had just ended it.
        allowed = {"raise", *ends} if self.raised else set(ends)
        return {"abort", *allowed} if self.has_aborted else allowed


CALLBACKS: dict[str, Callable[..., Any]] = {
    "on_connect": lambda conn: conn.state.called(conn, "connect"),
    "on_text": lambda conn, message: conn.state.called(conn, "text", message),
    "on_binary": lambda conn, message: conn.state.called(conn, "binary", message),
    "on_ping": lambda conn, payload: conn.state.called(conn, "ping", payload),
    "on_pong": lambda conn, payload: conn.state.called(conn, "pong", payload),
    "on_drain": lambda conn: conn.state.called(conn, "drain"),
    "on_disconnect": lambda conn, error: conn.state.ended(conn, error),
}
