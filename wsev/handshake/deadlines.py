"""Deadlines: many handshakes, one timeout, one timer.

All wait equally long, so the order in which they began is the order in which they end, and one ``call_later`` for the
first of them is enough.  It does not know what a handshake is, or what happens to one whose time is up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Deadlines"]

T = TypeVar("T")

# The timer fires no more often than this part of the timeout, however many end one by one: that late one may be.
_COARSENESS = 1 / 20


class Deadlines(Generic[T]):
    """Members, each of which ``expire`` is called for ``timeout`` seconds after it was added; never, with None."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float | None, expire: Callable[[T], None]) -> None:
        self._loop = loop
        self._time = loop.time
        self._timeout = timeout
        self._expire = expire
        self._members: dict[T, float] = {}  # each with its deadline, in their order
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: T) -> None:
        """Start the clock for a member that is not in yet."""
        if self._timeout is None:
            return
        self._members[member] = self._time() + self._timeout
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout, self._fire)

    def discard(self, member: T) -> float | None:
        """Stop the clock for a member, and return its deadline; None if it is no member."""
        return self._members.pop(member, None)

    def advance(self, now: float) -> None:
        """Take out every member whose deadline has come, and call ``expire`` for it."""
        expired = []
        for member, deadline in self._members.items():
            if deadline > now:
                break
            expired.append(member)
        for member in expired:
            if self._members.pop(member, None) is not None:  # not taken out by what became of one before it
                self._expire(member)

    def close(self) -> None:
        """Forget the members and the timer."""
        self._members.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        now = self._time()
        self.advance(now)
        self._timer = None
        if self._members and self._timeout is not None:
            wait = next(iter(self._members.values())) - now
            self._timer = self._loop.call_later(max(wait, self._timeout * _COARSENESS), self._fire)
