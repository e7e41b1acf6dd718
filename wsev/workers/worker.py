"""One process: its loop, its signals, its graceful end; alone, or as a worker whose supervisor watches it.

Knows a ``Service`` as something that is started and stopped, and no WebSocket.

Invariants: the service is stopped exactly once if it was started; the signal handlers that were there before are there
again afterwards.  SIGINT and SIGTERM stop gracefully; a second one ends the process at once.  A worker leaves SIGINT to
its supervisor, and stops when that is gone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol

from wsev.workers.places import Place
from wsev.workers.scoreboard import Figures

__all__ = ["REPLACED", "STOP", "Service", "console", "new_event_loop", "run", "run_worker"]

logger = logging.getLogger("wsev.worker")

SIGNALS = (signal.SIGINT, signal.SIGTERM)

STOP, REPLACED = b"S", b"R"  # what a supervisor tells a worker: to stop, and why

SCORE_INTERVAL = 0.5  # seconds between two writings of what a worker has counted: a pair of eyes sees no more

START_FAILED, FAILED = 3, 1  # exit statuses of a worker; 128 and a signal's number are a shell's for one that it ended
INTERRUPTED = 128 + signal.SIGINT

LARGE_BLOCK = 8 * 2**20  # bytes; of freed memory twice that is kept at the end of the heap


class Service(Protocol):
    """What a worker runs."""

    @property
    def description(self) -> str:
        """Where it listens, for the log."""

    @property
    def stop_timeout(self) -> float | None:
        """The seconds that ``stop`` leaves to what runs; None: no limit."""

    async def start(self, end: Callable[[BaseException | None], None]) -> None:
        """Begin to serve; ``end(error)`` ends the run, with an error if one is given."""

    async def stop(self, *, is_replaced: bool) -> None:
        """Stop gracefully; ``is_replaced``: another process serves in its place already."""

    def figures(self) -> tuple[Figures, Figures]:
        """What it has counted, after its stop too: what is now, and what only grows."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop of uvloop where that is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:  # Windows and PyPy, where it does not exist
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _reuse_large_blocks() -> None:
    """Let malloc keep what large messages leave, instead of giving it back to the system and asking again each time.

    Each page that is new costs a fault: an echo of 128 KiB takes three times the CPU with them.  glibc learns what to
    keep from the largest block that was freed (mallopt(3) on M_MMAP_THRESHOLD), which is never touched here.  To other
    allocators, and to a glibc whose MALLOC_MMAP_THRESHOLD_ or MALLOC_TRIM_THRESHOLD_ is set, this says nothing.
    """
    bytes(LARGE_BLOCK)


class Ending:
    """The end of a run, as something to wait for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.error: BaseException | None = None
        self.is_replaced = False
        self._event = asyncio.Event()

    def __call__(self, error: BaseException | None = None) -> None:
        self.error = self.error or error
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


# Alone.


def run(service: Service) -> None:
    """Run a service in this process until a signal or the service itself ends it.

    Signals are handled in the main thread only, the one that Python delivers them to.

    Raises:
        BaseException: what the service's ``start`` or ``stop`` raised, or what it gave to ``end``.
    """
    _reuse_large_blocks()
    runner = asyncio.Runner(loop_factory=new_event_loop)
    end = Ending(runner.get_loop())
    with console(), _signals(end, SIGNALS), runner:
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
        await service.stop(is_replaced=False)
        logger.info("stopped")


# As a worker.


def run_worker(make_service: Callable[[Place], Service], place: Place, channel: socket.socket) -> int:
    """Run a service in a forked process until its supervisor, a signal or the service itself ends it.

    Nothing is raised: what goes wrong is logged here, where it is known.

    Args:
        make_service: makes it; called once, here.
        place: where to serve.
        channel: to the supervisor.  It tells ``STOP`` or ``REPLACED``; its end of file is its death.  The worker tells
            once, when it serves, a line of JSON: ``on``, where it listens, and ``stop_timeout``.

    Returns:
        The exit status: 0, that of a SystemExit, 3 if it could not start, 1 if it failed later.
    """
    _reuse_large_blocks()
    runner = asyncio.Runner(loop_factory=new_event_loop)
    end = Ending(runner.get_loop())
    work = _Work(place, channel, end)
    try:
        with _signals(end, (signal.SIGTERM,)), runner:
            runner.run(work.do(make_service(place)))
        if end.error is not None:
            raise end.error
    except SystemExit as wish:
        return _status_of(wish)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException:
        logger.exception("worker %d %s", place.number, "failed" if work.has_started else "could not start")
        return FAILED if work.has_started else START_FAILED
    return 0


def _status_of(wish: SystemExit) -> int:
    """The exit status that Python makes of a SystemExit."""
    if wish.code is None or isinstance(wish.code, int):
        return (wish.code or 0) & 0xFF
    logger.error("%s", wish.code)
    return 1


class _Work:
    """The serving of one worker."""

    def __init__(self, place: Place, channel: socket.socket, end: Ending) -> None:
        self.has_started = False
        self._place = place
        self._channel = channel
        self._end = end
        self._is_orphan = False
        self._timer: asyncio.TimerHandle | None = None

    async def do(self, service: Service) -> None:
        """Serve until the end."""
        loop = asyncio.get_running_loop()
        self._channel.setblocking(False)
        loop.add_reader(self._channel.fileno(), self._listen_to_supervisor)
        try:
            await service.start(self._end)
            self.has_started = True
            try:
                self._write_score(service)
                self._tell_ready(service)
                await self._end.wait()
            finally:
                if self._timer is not None:
                    self._timer.cancel()
                await service.stop(is_replaced=self._end.is_replaced)
                self._place.score.write(*service.figures())
        finally:
            loop.remove_reader(self._channel.fileno())
            if self._is_orphan and self._place.directory is not None:
                with suppress(OSError):  # it is not empty: others still use it, and the last one removes it
                    os.rmdir(self._place.directory)

    def _listen_to_supervisor(self) -> None:
        try:
            told = self._channel.recv(64)
        except BlockingIOError:
            return
        except ConnectionError:
            told = b""
        if not told:
            self._is_orphan = True
            self._end.loop.remove_reader(self._channel.fileno())
            logger.warning("worker %d: the supervisor is gone; stopping", self._place.number)
        self._end.is_replaced = REPLACED in told
        self._end()

    def _tell_ready(self, service: Service) -> None:
        ready = {"on": service.description, "stop_timeout": service.stop_timeout}
        with suppress(OSError):  # it is gone, which its end of file will tell
            self._channel.send(json.dumps(ready).encode() + b"\n")

    def _write_score(self, service: Service) -> None:
        self._place.score.write(*service.figures())
        self._timer = self._end.loop.call_later(SCORE_INTERVAL, self._write_score, service)


# Signals and log.


@contextmanager
def _signals(end: Ending, numbers: Collection[signal.Signals]) -> Iterator[None]:
    """Signals call ``end`` the first time, and end the process the second."""
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
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def console(source: str = "%(name)s") -> Iterator[None]:
    """Show what wsev logs, from INFO on, in a program that has not set up logging, as long as it runs.

    Args:
        source: how a line says where it is from.
    """
    root = logging.getLogger("wsev")
    if root.hasHandlers():
        yield
        return
    handler, level = logging.StreamHandler(), root.level
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {source}: %(message)s"))
    root.addHandler(handler)
    if level == logging.NOTSET:
        root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
