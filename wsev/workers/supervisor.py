"""Supervisor: starts workers, watches them, replaces them, stops them.

Synchronous, without a loop and without threads, so that a fork is always safe: it waits for signals and for what
workers tell, and then does what is due.  Knows no WebSocket, and nothing of what its workers run.

Invariants: each place has at most one worker that serves and one that is to take its place; workers are replaced one at
a time; when ``run`` is left, however, no worker, socket or directory of it is left.
"""

from __future__ import annotations

import logging
import os
import select
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum

from wsev.options import Listening
from wsev.workers.places import Place, Places
from wsev.workers.process import State, WorkerProcess
from wsev.workers.scoreboard import Scoreboard
from wsev.workers.signals import Signals
from wsev.workers.worker import START_FAILED, Service, console

__all__ = ["Backoff", "Supervisor"]

logger = logging.getLogger("wsev.worker")

HANDLED = (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

FIRST_DELAY, MAX_DELAY = 0.5, 30.0  # seconds before a worker is started again, if it keeps dying
HEALTHY = 10.0  # seconds after which a worker that dies is not taken for one that keeps dying
# A place that nobody will serve for so many seconds is closed.  Until then a connection that waits there is better off
# than one that is reset; a client that hears nothing for longer may as well try elsewhere.
MAX_EMPTY = 1.0
# A Unix socket's path has at most 103 bytes on macOS, and 107 on Linux (unix(7)); a slash and a name take 14 of them.
MAX_DIRECTORY = 89


class Backoff:
    """How long to wait before the next worker of a place is started: not at first, and then longer and longer."""

    def __init__(self) -> None:
        self._deaths = 0

    def next_delay(self, served: float) -> float:
        """A worker has ended that served for so many seconds."""
        if served >= HEALTHY:
            self._deaths = 0
        self._deaths += 1
        return 0.0 if self._deaths == 1 else float(min(MAX_DELAY, FIRST_DELAY * 2 ** min(self._deaths - 2, 16)))


class Post:
    """A place, as the supervisor sees it.

    Attributes:
        number: the place's.
        worker: the one that serves there, or is to be the next to do so.
        successor: the one that takes its place as soon as it is ready.
        start_at: when the next worker is due, if there is none.
        has_served: whether a worker has been ready here yet.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.worker: WorkerProcess | None = None
        self.successor: WorkerProcess | None = None
        self.start_at: float | None = None
        self.has_served = False
        self.backoff = Backoff()


class Phase(Enum):
    """What a supervisor is doing."""

    STARTING = "starting"
    """Some place has not been served yet: a worker that ends before it serves ends the run."""
    SERVING = "serving"
    STOPPING = "stopping"
    """Every worker has been told to stop, and none is started."""


_NEXT = {
    Phase.STARTING: (Phase.SERVING, Phase.STOPPING),
    Phase.SERVING: (Phase.STOPPING,),
    Phase.STOPPING: (),
}


class Supervisor:
    """A number of workers on one port.

    Args:
        make_service: makes what a worker runs; called in each worker, once.
        listening: where to listen.  Its ``ssl`` is the workers' affair and not looked at.
        count: how many workers.
    """

    def __init__(self, make_service: Callable[[Place], Service], listening: Listening, count: int) -> None:
        self._make_service = make_service
        self._listening = listening
        self._posts = [Post(number) for number in range(count)]
        self._processes: dict[int, tuple[Post, WorkerProcess]] = {}  # by pid; all that have not been waited for
        self._directory: str | None = None
        self._had_terminal = False
        self._phase = Phase.STARTING
        self._to_replace: deque[Post] | None = None  # while workers are replaced: those that are still to be
        self._status = 0
        self._killed_by: signal.Signals | None = None

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, which stop all workers gracefully; a second one ends them at once.

        SIGHUP replaces the workers, one by one, without a gap.

        Raises:
            SystemExit: with status 3: a worker ended before it ever served.
            OSError: the port or path is in use, or not ours to use; or there is no room for a process.
            OptionError: what was given to listen on cannot be used.
            RuntimeError: this is not the main thread, the only one that gets signals.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("several workers are run from the main thread only: it alone gets signals")
        with console("%(name)s[%(process)d]"), Signals(HANDLED) as self._signals:
            self._warn_of_threads()
            # nohup lets a program outlive its terminal: it ignores SIGHUP.
            self._had_terminal = has_terminal() and not self._signals.was_ignored(signal.SIGHUP)
            self._places = Places(self._listening, len(self._posts))
            try:
                self._scoreboard = Scoreboard(slots=2 * len(self._posts) + 1)
                if len(self._posts) > 1:
                    self._directory = make_private_directory()
                self._supervise()
            finally:
                self._end_all()
            logger.info("stopped")
        if self._killed_by is not None:
            # As if nobody had handled it, so that whoever waits for us sees which signal it was.
            signal.signal(self._killed_by, signal.SIG_DFL)
            signal.raise_signal(self._killed_by)
        if self._status:
            raise SystemExit(self._status)

    def _supervise(self) -> None:
        for post in self._posts:
            post.worker = self._fork(post)
        while self._processes or self._phase is not Phase.STOPPING:
            self._wait()
            if self._killed_by is not None:
                return
            now = time.monotonic()
            self._start_due(now)
            self._replace_next(now)
            self._kill_late(now)

    def _end_all(self) -> None:
        """Leave nothing behind, whatever happened."""
        for _, process in self._processes.values():
            process.kill()
            process.has_ended(is_awaited=True)
            process.close()
        self._processes.clear()
        self._places.close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    # Waiting.

    def _wait(self) -> None:
        """Wait until something happens or is due, and take note of what happened."""
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        for _, process in self._processes.values():
            if process.is_heard:
                poll.register(process, select.POLLIN)
        due = min(self._due_times(), default=None)
        poll.poll(None if due is None else max(0.0, due - time.monotonic()) * 1000)
        now = time.monotonic()
        for number in self._signals.read():
            self._signalled(number, now)
        for post, process in list(self._processes.values()):
            is_new = process.state is State.STARTING
            process.listen(now)
            if is_new and process.state is State.SERVING:
                self._serves(post, process, now)
            if process.has_ended():
                self._ended(post, process, now)

    def _due_times(self) -> Iterator[float]:
        for post in self._posts:
            if post.start_at is not None:
                yield post.start_at
        for _, process in self._processes.values():
            if process.kill_at is not None:
                yield process.kill_at

    # What happens.

    def _signalled(self, number: signal.Signals, now: float) -> None:
        if number is signal.SIGCHLD:
            return  # it has woken us
        if number is signal.SIGHUP and not (self._had_terminal and not has_terminal()):
            if self._phase is not Phase.STOPPING:
                self._replace_all(now)
        elif self._phase is not Phase.STOPPING:
            logger.info("%s: stopping; a second one ends at once", number.name)
            self._stop(now)
        else:
            logger.warning("%s: ending at once", number.name)
            self._killed_by = number

    def _serves(self, post: Post, process: WorkerProcess, now: float) -> None:
        """A worker is ready."""
        post.has_served = True
        if process is post.successor:
            old, post.worker, post.successor = post.worker, process, None
            logger.info("%s is ready, and replaces %s", process, old)
            if old is not None:
                old.stop(now, is_replaced=True)
        else:
            logger.info("%s is ready", process)
        if self._phase is Phase.STARTING and all(each.has_served for each in self._posts):
            self._set_phase(Phase.SERVING)
            logger.info("started on %s, with %d workers", process.description, len(self._posts))

    def _ended(self, post: Post, process: WorkerProcess, now: float) -> None:
        """A worker has ended, and was waited for."""
        process.close()
        del self._processes[process.pid]
        self._scoreboard.close_slot(process.place.score)
        if process.was_told_to_stop:
            logger.info("%s stopped%s", process, "" if process.status == 0 else f": {process.end}")
        elif process is post.successor:
            post.successor = None
            self._to_replace = None
            logger.error("%s ended before it was ready: %s; the old workers go on", process, process.end)
        elif not post.has_served:
            self._start_failed(process, now)
        else:
            self._died(post, process, now)

    def _start_failed(self, process: WorkerProcess, now: float) -> None:
        logger.error("%s ended before it was ready: %s; stopping", process, process.end)
        self._status = START_FAILED
        self._stop(now)

    def _died(self, post: Post, process: WorkerProcess, now: float) -> None:
        """A worker has ended by itself: another takes its place, now or when it is due."""
        level = logging.INFO if process.status == 0 else logging.ERROR
        post.worker, post.successor = post.successor, None
        self._scoreboard.count_restart()
        served = now - process.served_since if process.served_since is not None else 0.0
        if post.worker is not None:
            logger.log(level, "%s ended: %s; %s takes its place", process, process.end, post.worker)
            return
        delay = post.backoff.next_delay(served)
        post.start_at = now + delay
        if delay > MAX_EMPTY:
            self._places.close_place(post.number)
        when = f" in {delay:g} s" if delay else ""
        logger.log(level, "%s ended: %s; starting another%s", process, process.end, when)

    # What is done.

    def _fork(self, post: Post) -> WorkerProcess:
        place = Place(
            post.number,
            self._places.sockets_of(post.number),
            self._scoreboard.open_slot(),
            self._directory,
        )
        try:
            process = WorkerProcess.fork(place, self._make_service, self._signals, lambda: self._leave_to(post))
        except OSError:
            self._scoreboard.close_slot(place.score)
            raise
        self._processes[process.pid] = (post, process)
        logger.info("%s starts", process)
        return process

    def _leave_to(self, post: Post) -> None:
        """In the worker of a post: close what is not its own."""
        for _, process in self._processes.values():
            process.close()
        self._places.leave_to(post.number)

    def _start_due(self, now: float) -> None:
        for post in self._posts:
            if post.start_at is not None and post.start_at <= now:
                post.start_at = None
                try:
                    post.worker = self._fork(post)
                except OSError as error:
                    delay = max(FIRST_DELAY, post.backoff.next_delay(0.0))
                    logger.error("worker %d cannot be started: %s; again in %g s", post.number, error, delay)
                    post.start_at = now + delay

    def _replace_all(self, now: float) -> None:
        logger.info("SIGHUP: replacing %d workers, one by one", len(self._posts))
        for post in self._posts:
            if post.successor is not None:  # made of what was there before this signal
                post.successor.stop(now)
                post.successor = None
        self._to_replace = deque(self._posts)

    def _replace_next(self, now: float) -> None:
        """Start the next successor, when the one before is ready and the one that it replaced has ended."""
        is_busy = any(post.successor is not None for post in self._posts) or any(
            process.state is State.STOPPING for _, process in self._processes.values()
        )
        if is_busy or self._to_replace is None or self._phase is Phase.STOPPING:
            return
        if not self._to_replace:
            self._to_replace = None
            logger.info("all workers are replaced")
            return
        post = self._to_replace.popleft()
        if post.worker is None:
            post.start_at = now
            return
        try:
            post.successor = self._fork(post)
        except OSError as error:
            self._to_replace = None
            logger.error("worker %d cannot be replaced: %s; the old workers go on", post.number, error)

    def _kill_late(self, now: float) -> None:
        for _, process in self._processes.values():
            if process.kill_at is not None and process.kill_at <= now:
                logger.error("%s does not stop; killing it", process)
                process.kill()

    def _stop(self, now: float) -> None:
        """Stop all workers gracefully."""
        self._set_phase(Phase.STOPPING)
        self._places.close()  # or clients would wait to be accepted by nobody
        for post in self._posts:
            post.start_at = None
        for _, process in self._processes.values():
            process.stop(now)

    def _set_phase(self, phase: Phase) -> None:
        assert phase in _NEXT[self._phase], (self._phase, phase)
        self._phase = phase

    def _warn_of_threads(self) -> None:
        others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        if others:
            logger.warning(
                "threads run already (%s): a lock that one of them holds now is held for ever in the workers; start "
                "threads in lifespan",
                ", ".join(others),
            )


def make_private_directory() -> str:
    """A directory that only this user may enter, with a path that leaves room for the names of Unix sockets."""
    directory = tempfile.mkdtemp(prefix="wsev-")
    if len(os.fsencode(directory)) > MAX_DIRECTORY:
        os.rmdir(directory)
        directory = tempfile.mkdtemp(prefix="wsev-", dir="/tmp")
    return directory


def has_terminal() -> bool:
    """Whether a terminal controls this process; one that was closed does no more."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
