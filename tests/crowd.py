"""A crowd: many clients under steady traffic, each of which reports what became of it.

A client connects, sends a message and waits for its echo, again and again; when it is told to come back (a Close frame)
it answers and connects anew.  Whatever else happens to it is a complaint: that it was refused, cut off, or left without
an answer.  The crowd knows a port of 127.0.0.1 and nothing of who serves there.
"""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from dataclasses import dataclass, field

from tests.peer import CLOSE, TEXT, Peer, encode_frame

PATIENCE = 60.0  # seconds that a client waits for anything before it complains that it hangs; the crowd shares one CPU
LOT = 100  # clients that connect at once in the beginning, so that the crowd does not overrun its own loop


@dataclass
class Report:
    """What became of one client."""

    welcomes: int = 0
    echoes: int = 0
    closes: Counter[int] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)


class Crowd:
    """Clients, from `come` to `leave`.

    Args:
        port: where they connect.
        size: how many they are.
        pause: seconds between an echo and the next message of a client.
    """

    def __init__(self, port: int, size: int, *, pause: float) -> None:
        self.reports = [Report() for _ in range(size)]
        self._port = port
        self._pause = pause
        self._leaving = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def come(self) -> None:
        """Return when every client has been let in and has heard its first echo, or has complained."""
        for start in range(0, len(self.reports), LOT):
            settled = []
            for report in self.reports[start : start + LOT]:
                at_home = asyncio.Event()
                self._tasks.append(asyncio.create_task(self._live(report, at_home)))
                settled.append(at_home.wait())
            await asyncio.gather(*settled)

    async def leave(self) -> list[Report]:
        """Every client says goodbye, which must be answered; the reports of all."""
        self._leaving.set()
        await asyncio.gather(*self._tasks)
        return self.reports

    async def _live(self, report: Report, settled: asyncio.Event) -> None:
        doing = "?"
        try:
            while not self._leaving.is_set():
                doing = "connecting"
                async with asyncio.timeout(PATIENCE):
                    peer = Peer(*await asyncio.open_connection("127.0.0.1", self._port))
                try:
                    doing = "in the opening handshake"
                    async with asyncio.timeout(PATIENCE):
                        await peer.upgrade()
                    report.welcomes += 1
                    doing = "connected"
                    await self._talk(peer, report, settled)
                finally:
                    peer.writer.transport.abort()
        except (OSError, EOFError, TimeoutError, AssertionError) as error:
            report.complaints.append(f"{doing}: {type(error).__name__} {error}")
        finally:
            settled.set()

    async def _talk(self, peer: Peer, report: Report, settled: asyncio.Event) -> None:
        """Send and hear echoes until the server, or the crowd, ends the connection."""
        loop = asyncio.get_running_loop()

        def say() -> None:
            peer.writer.write(encode_frame(TEXT, b"%d" % report.echoes))

        say()
        next_one = None
        try:
            while True:
                async with asyncio.timeout(PATIENCE + self._pause):
                    frame = await peer.read_frame()
                if frame.opcode == CLOSE:
                    await self._answer(peer, frame.payload, report)
                    return
                assert frame == (True, TEXT, b"%d" % report.echoes), frame
                report.echoes += 1
                settled.set()
                if self._leaving.is_set():
                    await self._say_goodbye(peer)
                    return
                next_one = loop.call_later(self._pause, say)
        finally:
            if next_one is not None:
                next_one.cancel()

    async def _answer(self, peer: Peer, payload: bytes, report: Report) -> None:
        (code,) = struct.unpack("!H", payload[:2])
        report.closes[code] += 1
        await peer.send_close(code)
        async with asyncio.timeout(PATIENCE):
            await peer.read_eof()

    async def _say_goodbye(self, peer: Peer) -> None:
        await peer.send_close(1000)
        async with asyncio.timeout(PATIENCE):
            await peer.expect_close(1000)
