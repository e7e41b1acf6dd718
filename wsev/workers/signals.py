"""Signals as something to wait for beside others: each that comes is a byte to read from a descriptor.

So what a signal means is decided in one place, by the one who waits, and never in the middle of something else.

Invariant: handlers and wake-up descriptor are those from before again when it is closed; and in a forked child, which
would otherwise write to the pipe of its parent, after ``leave``.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

__all__ = ["Signals"]


class Signals:
    """Signals of the main thread, as a context manager; ``fileno()`` is readable when one has come.

    Args:
        numbers: those to wait for.
    """

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self._numbers = tuple(numbers)

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handlers_before = {number: signal.signal(number, ignore) for number in self._numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self._wakeup_before)
        self._close()

    def fileno(self) -> int:
        """What to wait on."""
        return self._reader.fileno()

    def read(self) -> list[signal.Signals]:
        """The signals that have come since the last call, in their order."""
        try:
            data = self._reader.recv(4096)
        except BlockingIOError:
            return []
        return [signal.Signals(number) for number in data if number in self._numbers]

    def was_ignored(self, number: signal.Signals) -> bool:
        """Whether it was ignored before."""
        return self._handlers_before[number] is signal.SIG_IGN

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """Let none be delivered within the block, such as to a child that has not called ``leave`` yet."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def leave(self, ignored: Iterable[signal.Signals]) -> None:
        """In a forked child: signals are its own; ``ignored`` ones do nothing, the others what they do by default."""
        signal.set_wakeup_fd(-1)
        for number in self._numbers:
            # Not SIG_IGN, which the programs that the child may start would inherit.
            signal.signal(number, ignore if number in ignored else signal.SIG_DFL)
        self._close()

    def _close(self) -> None:
        self._reader.close()
        self._writer.close()


def ignore(number: int, frame: FrameType | None) -> None:
    """Handle a signal by doing nothing: what it should do is done by who reads the descriptor, or by nobody."""
