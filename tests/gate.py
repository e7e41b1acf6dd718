"""A callback that stays suspended until the test says so: what happens meanwhile, and in which order, is the test's.

It knows no server: `server.on_message(gate)`.  What the server has dealt with meanwhile is proven by a fence.
"""

from __future__ import annotations

import asyncio
from typing import Any

import wsev


class Gate:
    """An on_message that waits until the gate is open, then echoes.

    Args:
        stops: the messages that wait; every one if none is named.

    Attributes:
        begun: the messages in the order in which their callbacks began.
        ended: likewise, as they ended.
    """

    def __init__(self, *stops: str | bytes) -> None:
        self.begun: list[str | bytes] = []
        self.ended: list[str | bytes] = []
        self._stops = stops
        self._opened = asyncio.Event()

    async def __call__(self, conn: wsev.Connection[Any], message: str | bytes) -> None:
        self.begun.append(message)
        if not self._stops or message in self._stops:
            await self.wait()
        self.ended.append(message)
        conn.send(message)

    async def wait(self) -> None:
        """Wait until the gate is open; for callbacks of the test's own."""
        await self._opened.wait()

    def open(self) -> None:
        """Let through all that wait and all that come."""
        self._opened.set()
