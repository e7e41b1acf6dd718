"""One process: its loop, its signals, its graceful end.

Knows a ``Service`` as something that is started and stopped, and no WebSocket.

Invariants: the service is stopped exactly once if it was started; the signal handlers that were there before are there
again afterwards.  SIGINT and SIGTERM stop gracefully; a second one ends the process at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

__all__ = ["Service", "new_event_loop", "run"]

logger = logging.getLogger("wsev.worker")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Service(Protocol):
    """What a worker runs."""

    @property
    def description(self) -> str:
        """Where it listens, for the log."""

    async def start(self, end: Callable[[BaseException | None], None]) -> None:
        """Begin to serve; ``end(error)`` ends the run, with an error if one is given."""

    async def stop(self) -> None:
        """Stop gracefully, within the time that it allows itself."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop of uvloop where that is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:  # Windows and PyPy, where it does not exist
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class Ending:
    """The end of a run, as something to wait for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.error: BaseException | None = None
        self._event = asyncio.Event()

    def __call__(self, error: BaseException | None = None) -> None:
        self.error = self.error or error
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


def run(service: Service) -> None:
    """Run a service in this process until a signal or the service itself ends it.

    Signals are handled in the main thread only, the one that Python delivers them to.

    Raises:
        BaseException: what the service's ``start`` or ``stop`` raised, or what it gave to ``end``.
    """
    runner = asyncio.Runner(loop_factory=new_event_loop)
    end = Ending(runner.get_loop())
    with _console(), _signals(end), runner:
        runner.run(_serve(service, end))
    if end.error is not None:
        # Not raised within the loop: a task that raises SystemExit breaks it off where it stands.
        raise end.error


async def _serve(service: Service, end: Ending) -> None:
    await service.start(end)
    logger.info("started on %s", service.description)
    try:
        await end.wait()
    finally:
        await service.stop()
        logger.info("stopped")


@contextmanager
def _signals(end: Ending) -> Iterator[None]:
    """SIGINT and SIGTERM call ``end`` the first time, and end the process the second."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            # As if nobody handled it, so that whoever waits for us sees which signal it was.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        received.append(number)
        logger.info("%s: stopping; a second one ends at once", signal.Signals(number).name)
        if not end.loop.is_closed():
            end.loop.call_soon_threadsafe(end)

    # Not loop.add_signal_handler: that calls from the loop, and a callback that never returns would block it as well.
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def _console() -> Iterator[None]:
    """Show what wsev logs, from INFO on, in a program that has not set up logging, as long as it runs."""
    root = logging.getLogger("wsev")
    if root.hasHandlers():
        yield
        return
    handler, level = logging.StreamHandler(), root.level
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    if level == logging.NOTSET:
        root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
