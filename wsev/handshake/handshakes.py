"""Handshakes: what the opening handshakes of one server and loop share.

It owns the clocks, the running callbacks, the log of refusals and the end of all of it when the server stops.  It does
not know what a handshake does: that is opening.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any
from weakref import WeakSet

from wsev._core.head import HeadLimits
from wsev._core.loop import LoopState
from wsev.handshake.deadlines import Deadlines
from wsev.handshake.host import Host
from wsev.handshake.opening import TIMED_OUT, UNDECIDED, OpeningHandshake, State
from wsev.handshake.origin import OriginPolicy
from wsev.handshake.response import Response
from wsev.handshake.upgrade import FOREIGN_ORIGIN, HEAD_TOO_LARGE, LINE_TOO_LONG, TOO_MANY_FIELDS

__all__ = ["Handshakes"]

logger = logging.getLogger("wsev.handshake")

# How long what a refused peer still sends is read and dropped, so that the answer survives (RFC 9112 section 9.6): a
# close with unread bytes makes the kernel send RST, which deletes the answer at the peer.  A second: a slow round trip.
LINGER_TIMEOUT = 1.0

# How often one kind of refusal is logged at most: peers can cause them at will.
LOG_INTERVAL = 1.0

# What the log says to whoever runs the server, and not the answer to the peer.
REMEDIES = {
    FOREIGN_ORIGIN: (
        "Allow them with the option origins=('https://their.example',), or let the proxy in between pass on Host as it "
        "came."
    ),
    LINE_TOO_LONG: "The option max_request_line allows longer ones.",
    HEAD_TOO_LARGE: "The option max_request_size allows larger ones.",
    TOO_MANY_FIELDS: "The option max_headers allows more.",
    TIMED_OUT: "The option handshake_timeout allows more time.",
    UNDECIDED: "on_upgrade or on_request took longer than upgrade_timeout.",
}


class Handshakes:
    """What the opening handshakes of one server and loop share; called, it makes one, as a protocol factory does.

    Attributes:
        open: those that hold a connection now, refused ones too until TCP has ended.
        handed_over: the transports of requests that were given to ``http=``, as long as they live.
        refused: how many requests were answered with each status.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.loop_state = LoopState.of(host.loop)
        self.policy = OriginPolicy(host.options.origins)
        self.open: set[OpeningHandshake] = set()
        self.handed_over: WeakSet[asyncio.Transport] = WeakSet()
        self.refused: Counter[int] = Counter()
        self.tasks: set[asyncio.Task[None]] = set()
        self._last_logged: dict[Response, float] = {}
        self._finished: asyncio.Future[None] | None = None  # while somebody waits for the last one
        options, loop = host.options, host.loop
        self.limits = HeadLimits(options.max_request_line, options.max_request_size, options.max_headers)
        timeouts = {
            State.READING: options.handshake_timeout,
            State.DECIDING: options.upgrade_timeout,
            State.ANSWERING: options.write_timeout,
            State.LINGERING: LINGER_TIMEOUT,
            State.CLOSING: options.close_timeout,
            State.OVER: None,
        }
        self.deadlines = tuple(Deadlines(loop, timeouts[state], OpeningHandshake.time_out) for state in State)

    def __call__(self) -> OpeningHandshake:
        return OpeningHandshake(self)

    async def finish(self, timeout: float | None) -> None:
        """Let those that have begun be answered as ever, for at most ``timeout`` seconds.

        Call it when nothing is accepted any more.
        """
        await asyncio.sleep(0)  # asyncio's loop makes the protocol of what it accepted last in a task
        if not self._is_idle:
            self._finished = self.host.loop.create_future()
            await asyncio.wait((self._finished,), timeout=timeout)
            self._finished = None

    @property
    def _is_idle(self) -> bool:
        # A connection within its TLS handshake is in none of the open ones yet, but its clock runs.
        return not self.open and not self.deadlines[State.READING]

    def left(self, handshake: OpeningHandshake) -> None:
        """A handshake is over."""
        self.open.discard(handshake)
        if self._finished is not None and self._is_idle and not self._finished.done():
            self._finished.set_result(None)

    async def stop(self, timeout: float | None) -> None:
        """Answer every request that has begun with 503, end all connections, and wait for the callbacks that run.

        Those that still run after ``timeout`` seconds are cancelled.  Call it when nothing is accepted any more.
        """
        for handshake in list(self.open):
            handshake.stop()
        serving = self.host.loop.create_task(self._stop_http(timeout))
        if self.tasks:
            _, late = await asyncio.wait(set(self.tasks), timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        await serving

    async def _stop_http(self, timeout: float | None) -> None:
        """End what http= serves; its own way, if it has one: aiohttp's server and wsev.asgi do."""
        http: Any = self.host.http
        if self.handed_over and hasattr(http, "pre_shutdown"):
            http.pre_shutdown()  # aiohttp: end the idle connections, which shutdown() would wait for
        if self.handed_over and hasattr(http, "shutdown"):
            await http.shutdown(timeout)
        for transport in list(self.handed_over):
            transport.abort()

    def close(self) -> None:
        """End at once what ``stop`` left."""
        for handshake in list(self.open):
            handshake.end()
        for deadlines in self.deadlines:
            deadlines.close()

    def log_refusal(self, response: Response, handshake: OpeningHandshake) -> None:
        """Count a refusal, and log it: each kind at most once in LOG_INTERVAL.  ``response`` is one of ours."""
        self.refused[response.status] += 1
        now = self.host.loop.time()
        if now - self._last_logged.get(response, -LOG_INTERVAL) < LOG_INTERVAL:
            return
        self._last_logged[response] = now
        reason = f"{response.body.decode().rstrip()} {REMEDIES.get(response, '')}".rstrip(" ")
        logger.info("%s: refused with %d: %s", handshake.remote_address, response.status, reason)
