"""WorkerProcess: one forked worker, as its supervisor sees it.

Owns the fork, the channel between the two, and what is known of the worker.  What to do about it is the supervisor's.

Invariants: the child never comes back to the caller of ``fork``; it keeps no descriptor of the supervisor's but what is
its own, so that each sees the end of the other.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from enum import Enum
from typing import Self

from wsev.workers.places import Place
from wsev.workers.signals import Signals
from wsev.workers.worker import REPLACED, STOP, Service, run_worker

__all__ = ["State", "WorkerProcess"]

logger = logging.getLogger("wsev.worker")

# Seconds beyond stop_timeout before a worker that has been told to stop is killed.  What is cancelled at stop_timeout
# may take a second twice, a lifespan and the closing of connections some more; what takes longer hangs.
KILL_AFTER = 10.0
# What Ctrl-C and a closed terminal send to all processes of a program; the supervisor decides what they mean.
IGNORED = (signal.SIGINT, signal.SIGHUP)


class State(Enum):
    """What a worker process is doing."""

    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"
    ENDED = "ended"


_NEXT = {
    State.STARTING: (State.SERVING, State.STOPPING, State.ENDED),
    State.SERVING: (State.STOPPING, State.ENDED),
    State.STOPPING: (State.ENDED,),
    State.ENDED: (),
}


class WorkerProcess:
    """One worker process.

    Attributes:
        place: where it serves.
        pid: its number.
        state: what it is doing.
        description: where it listens, once it serves.
        served_since: when it began to.
        kill_at: when it is to be killed, if it does not end before.
        was_told_to_stop: it has been.
        is_heard: its end of the channel is open.
        status: how it ended, as ``os.waitstatus_to_exitcode`` has it.
    """

    def __init__(self, place: Place, pid: int, channel: socket.socket) -> None:
        self.place = place
        self.pid = pid
        self.state = State.STARTING
        self.description = ""
        self.served_since: float | None = None
        self.kill_at: float | None = None
        self.was_told_to_stop = False
        self.is_heard = True
        self.status: int | None = None
        self._channel = channel
        self._stop_timeout: float | None = 0.0  # as long as nothing is served, nothing has to be let finish
        self._told = b""

    @classmethod
    def fork(
        cls,
        place: Place,
        make_service: Callable[[Place], Service],
        signals: Signals,
        close_inherited: Callable[[], None],
    ) -> Self:
        """Start a worker.

        Args:
            place: where it serves.
            make_service: is called in the worker.
            signals: the supervisor's.
            close_inherited: is called in the worker, and closes what is not the worker's.

        Raises:
            OSError: the system has no room for another process.
        """
        ours, its = socket.socketpair()
        sys.stdout.flush()  # or both would write what was not written yet
        sys.stderr.flush()
        with signals.blocked():
            try:
                pid = os.fork()
            except OSError:
                ours.close()
                its.close()
                raise
            if pid == 0:
                ours.close()
                signals.leave(IGNORED)
        if pid == 0:
            _live(place, make_service, its, close_inherited)
        its.close()
        ours.setblocking(False)
        return cls(place, pid, ours)

    def fileno(self) -> int:
        """The channel, which is readable when the worker has told something."""
        return self._channel.fileno()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def listen(self, now: float) -> None:
        """Take note of what the worker has told: that it serves."""
        try:
            told = self._channel.recv(4096)
        except BlockingIOError:
            return
        except ConnectionError:
            told = b""
        self.is_heard = bool(told)
        self._told += told
        if self._told.endswith(b"\n") and self.state is State.STARTING:
            ready = json.loads(self._told)
            self.description, self._stop_timeout = ready["on"], ready["stop_timeout"]
            self.served_since = now
            self._set_state(State.SERVING)

    def stop(self, now: float, *, is_replaced: bool = False) -> None:
        """Tell it to stop, once."""
        if self.state not in (State.STARTING, State.SERVING):
            return
        self._set_state(State.STOPPING)
        self.was_told_to_stop = True
        if self._stop_timeout is not None:
            self.kill_at = now + self._stop_timeout + KILL_AFTER
        with contextlib.suppress(OSError):  # it has just ended
            self._channel.send(REPLACED if is_replaced else STOP)

    def kill(self) -> None:
        """End it at once; it has not been waited for, so its number is its own."""
        self.kill_at = None
        if self.state is not State.ENDED:
            os.kill(self.pid, signal.SIGKILL)

    def has_ended(self, *, is_awaited: bool = False) -> bool:
        """Whether it has; with ``is_awaited``, wait until it has."""
        pid, status = os.waitpid(self.pid, 0 if is_awaited else os.WNOHANG)
        if pid == 0:
            return False
        self.status = os.waitstatus_to_exitcode(status)
        self._set_state(State.ENDED)
        return True

    @property
    def end(self) -> str:
        """How it ended, in words."""
        assert self.status is not None
        if self.status >= 0:
            return f"exit status {self.status}"
        try:
            return signal.Signals(-self.status).name
        except ValueError:  # a real-time signal
            return f"signal {-self.status}"

    def _set_state(self, state: State) -> None:
        assert state in _NEXT[self.state], (self.state, state)
        self.state = state

    def __str__(self) -> str:
        return f"worker {self.place.number} (pid {self.pid})"


def _live(
    place: Place,
    make_service: Callable[[Place], Service],
    channel: socket.socket,
    close_inherited: Callable[[], None],
) -> None:
    """The whole life of the child, which ends here whatever happens: the stack above is the supervisor's."""
    status = 1
    try:
        close_inherited()
        status = run_worker(make_service, place, channel)
    except BaseException:
        logger.exception("worker %d failed", place.number)
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
