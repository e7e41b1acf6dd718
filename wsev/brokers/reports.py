"""Reports: what goes wrong with a broker, told once a second at most, however often it happens.

Owns the count of dropped messages.  Nothing is told from inside a call: on_error is the user's, and runs from the loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from wsev.errors import BrokerError

__all__ = ["Reports"]

INTERVAL = 1.0  # seconds


class Reports:
    """Gathers drops and failures.

    Args:
        tell: is given an error, which sums up those of an interval; the first comes at once.

    Attributes:
        messages: how many were dropped, ever.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tell: Callable[[BrokerError], None]) -> None:
        self._loop = loop
        self._tell = tell
        self._drops: Counter[str] = Counter()  # by reason, not told yet
        self._failure: BrokerError | None = None  # the first that is not told yet
        self._more = 0  # failures after it
        self._handle: asyncio.Handle | None = None  # of the next telling
        self.messages = 0

    def dropped(self, messages: int, reason: str) -> None:
        """Messages were dropped."""
        self.messages += messages
        self._drops[reason] += messages
        self._tell_soon()

    def failed(self, error: BrokerError) -> None:
        """Something else went wrong."""
        if self._failure is None:
            self._failure = error
        else:
            self._more += 1
        self._tell_soon()

    def close(self) -> None:
        """Tell now what is left."""
        if self._handle is not None:
            self._handle.cancel()
        self._tell_all()

    def _tell_soon(self) -> None:
        if self._handle is None:
            self._handle = self._loop.call_soon(self._begin_interval)

    def _begin_interval(self) -> None:
        self._handle = self._loop.call_later(INTERVAL, self._end_interval)
        self._tell_all()

    def _end_interval(self) -> None:
        self._handle = None
        if self._drops or self._failure is not None:
            self._begin_interval()

    def _tell_all(self) -> None:
        drops, failure, more = self._drops, self._failure, self._more
        self._drops, self._failure, self._more = Counter(), None, 0
        if failure is not None:
            if more:
                failure.reason += f"; and {more} more"
            self._tell(failure)
        for reason, messages in drops.items():
            self._tell(BrokerError(f"dropped messages: {messages}; {reason}", dropped=messages))
