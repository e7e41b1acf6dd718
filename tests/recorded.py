"""A transport and a clock that do nothing by themselves, for tests of protocols without sockets and without waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class RecordedTransport(asyncio.Transport):
    """Keeps what was written, and what was done to it; the peer takes all at once unless ``is_stuck``."""

    def __init__(
        self, *, peername: object = ("192.0.2.7", 50412), is_tls: bool = False, is_stuck: bool = False
    ) -> None:
        super().__init__({"peername": peername})
        self.is_tls = is_tls
        self.is_stuck = is_stuck
        self.protocol: asyncio.BaseProtocol | None = None
        self.written = b""
        self.unsent = 0
        self.is_reading_now = True
        self.has_eof = self.is_closed = self.is_aborted = False

    def write(self, data: Any) -> None:
        assert not self.has_eof, "write after write_eof"
        self.written += data
        if self.is_stuck:
            self.unsent += len(data)

    def can_write_eof(self) -> bool:
        return not self.is_tls

    def write_eof(self) -> None:
        self.has_eof = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        assert self.is_reading_now
        self.is_reading_now = False

    def resume_reading(self) -> None:
        assert not self.is_reading_now
        self.is_reading_now = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol


class Timer:
    def __init__(self, when: float, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self.when = when
        self.callback = callback
        self.args = args
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


_Loop: Any = asyncio.AbstractEventLoop  # abstract in 45 methods that no test here calls


class ManualLoop(_Loop):  # type: ignore[misc]  # as said
    """A loop that is a clock only: ``pass_time(seconds)`` calls what ``call_later`` set, in order."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        self.timers.append(Timer(self.now + delay, callback, args))
        return self.timers[-1]

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.when <= end and not timer.is_cancelled]:
            first = min(due, key=lambda timer: timer.when)
            self.timers.remove(first)
            self.now = max(self.now, first.when)
            first.callback(*first.args)
        self.now = end
