"""What the attacks share: a server whose callbacks are recorded, and the proof that it still serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import Connect, Raw, Serve
from tests.peer import Peer
from wsev import Connection, Server

# Seconds that others wait at most while an attack goes on.  No measure of speed: it tells being served from being
# starved, on a busy machine and on a sanitizer build too.
LATENCY = 5.0


class Attacked:
    """An echo server, started; it keeps what its callbacks were given."""

    def __init__(self, serve: Serve, raw: Raw) -> None:
        self._serve = serve
        self._raw = raw
        self.server: Server[Any] = Server()
        self.got: list[str | bytes] = []
        self.fails_at: str | None = None
        self.waits_at: tuple[str, asyncio.Future[None]] | None = None
        self.ends: asyncio.Queue[BaseException | None] = asyncio.Queue()

    async def start(self, **options: Any) -> Server[Any]:
        self.server = Server(**options)
        self.server.on_message(self._on_message)
        self.server.on_disconnect(self._on_disconnect)
        return await self._serve(self.server)

    def _on_message(self, conn: Connection[Any], message: str | bytes) -> asyncio.Future[None] | None:
        self.got.append(message)
        if message == self.fails_at:
            raise ValueError(message)
        if self.waits_at is not None and message == self.waits_at[0]:
            return self.waits_at[1]
        conn.send(message)
        return None

    def _on_disconnect(self, conn: Connection[Any], error: BaseException | None) -> None:
        self.ends.put_nowait(error)

    async def open(self, **sizes: Any) -> Peer:
        peer = await self._raw(self.server, **sizes)
        await peer.upgrade()
        return peer

    async def open_unasked(self, data: bytes) -> Peer:
        """A connection whose first packet is ``data``; its answer is not read."""
        peer = await self._raw(self.server)
        await peer.send(data)
        return peer

    async def end(self) -> BaseException | None:
        """The reason of the next connection that ended."""
        async with asyncio.timeout(15):
            return await self.ends.get()


@pytest.fixture
async def attacked(serve: Serve, raw: Raw, connect: Connect) -> AsyncIterator[Attacked]:
    """`await attacked.start(**options)`; after the test a fresh client must be served within a second or two."""
    attacked = Attacked(serve, raw)
    yield attacked
    async with asyncio.timeout(2.0):
        client = await connect(attacked.server)
        await client.send("still there?")
        assert await client.recv() == "still there?"
        await client.close()
