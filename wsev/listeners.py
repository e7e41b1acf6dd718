"""Listener: a callback of ``Server.subscribe``, by which the worker itself hears what is published on a topic.

Owns what waits for the callback.  Invariants: it is called by the loop, never from inside a publish, one message at a
time and in order; what waits is bounded, whatever is published.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeAlias

from wsev.errors import CallbackError
from wsev.options import MIB, Options

__all__ = ["Listener", "ListenerHost", "OnPublished"]

# Called as callback(topic, message): str for text (bytes with decode_text=False), bytes for binary.
OnPublished: TypeAlias = Callable[[str, Any], object]

MAX_WAITING = 16 * MIB  # bytes that wait for one callback; what a link between workers holds, too
OVERHEAD = 128  # bytes that a waiting message takes beside its payload, so that empty ones are bounded as well


class ListenerHost(Protocol):
    """The run of a server, as a listener needs it."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that calls the callbacks."""

    @property
    def options(self) -> Options:
        """The server's options."""

    def create_task(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine as a task that a stop waits for."""

    def callback_failed(self, error: CallbackError) -> None:
        """The callback raised."""

    def exit(self, error: BaseException) -> None:
        """It raised KeyboardInterrupt or SystemExit."""


class Listener:
    """One callback, subscribed to one topic, during one run of a server.

    Args:
        topic: the topic.
        callback: called as ``callback(topic, message)``.
        host: the run.
        dropped: is called with how many messages found no room, and why.
        is_held: nothing is called until ``release``.
    """

    def __init__(
        self,
        topic: str,
        callback: OnPublished,
        *,
        host: ListenerHost,
        dropped: Callable[[int, str], None],
        is_held: bool,
    ) -> None:
        self.topic = topic
        self.callback = callback
        self._host = host
        self._dropped = dropped
        self._is_held = is_held
        self._is_closed = False  # nothing more is taken
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self._size = 0  # bytes of what waits
        self._start: asyncio.Handle | None = None  # of the task, soon
        self._task: asyncio.Task[None] | None = None  # the last one

    def put(self, payload: bytes, is_text: bool) -> None:
        """A message was published."""
        size = len(payload) + OVERHEAD
        if self._is_closed:
            return
        if self._size and self._size + size > MAX_WAITING:
            self._dropped(1, "a callback of server.subscribe is too slow for them")
            return
        self._size += size
        self._waiting.append((payload, is_text))
        self._run_soon()

    def release(self) -> None:
        """Begin to call."""
        self._is_held = False
        self._run_soon()

    def finish(self) -> None:
        """Take nothing more; what waits is still called for, by a task of the host's."""
        self._is_closed = True
        if self._start is not None:
            self._start.cancel()
            self._run()

    def cancel(self) -> None:
        """Take nothing more, and forget what waits; a call that runs goes on to its end."""
        self._is_closed = True
        self._waiting.clear()

    def _run_soon(self) -> None:
        # Not a task at once: where tasks are eager it would call from inside the publish.
        if self._start is None and self._waiting and not self._is_held and (self._task is None or self._task.done()):
            self._start = self._host.loop.call_soon(self._run)

    def _run(self) -> None:
        self._start = None
        self._task = self._host.create_task(self._call_for_all())

    async def _call_for_all(self) -> None:
        turns = len(self._waiting)
        while self._waiting:
            payload, is_text = self._waiting.popleft()
            self._size -= len(payload) + OVERHEAD
            await self._call(payload, is_text)
            turns -= 1
            if turns <= 0 and self._waiting:
                await asyncio.sleep(0)  # what the callback itself publishes here may not keep the loop for ever
                turns = len(self._waiting)

    async def _call(self, payload: bytes, is_text: bool) -> None:
        message = payload.decode("utf-8", "replace") if is_text and self._host.options.decode_text else payload
        try:
            result = self.callback(self.topic, message)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # by a stop; else by something that the callback awaited, which ends this call alone
        except Exception as failure:
            error = CallbackError("subscribe")
            error.__cause__ = failure
            self._host.callback_failed(error)
        except (KeyboardInterrupt, SystemExit) as wish:
            self._host.exit(wish)
