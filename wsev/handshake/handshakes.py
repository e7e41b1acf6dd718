"""Handshakes: what the opening handshakes of one server and loop share.

It owns the clocks, the running callbacks, the log of refusals and the end of all of it when the server stops.  It does
not know what a handshake does: that is opening.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any
from weakref import WeakSet, ref

from wsev._core.head import HeadLimits
from wsev._core.loop import LoopState
from wsev.handshake.deadlines import Deadlines
from wsev.handshake.extensions import DeflatePolicy
from wsev.handshake.host import Host
from wsev.handshake.opening import TIMED_OUT, UNDECIDED, OpeningHandshake, State
from wsev.handshake.origin import OriginPolicy
from wsev.handshake.request import Address
from wsev.handshake.response import Response
from wsev.handshake.upgrade import FOREIGN_ORIGIN, HEAD_TOO_LARGE, LINE_TOO_LONG, TOO_MANY_FIELDS
from wsev.options import Options

__all__ = ["NO_ROOM", "Handshakes"]

logger = logging.getLogger("wsev.handshake")

# How long what a refused peer still sends is read and dropped, so that the answer survives (RFC 9112 section 9.6): a
# close with unread bytes makes the kernel send RST, which deletes the answer at the peer.  A second: a slow round trip.
LINGER_TIMEOUT = 1.0

# How often one kind of refusal is logged at most: peers can cause them at will.
LOG_INTERVAL = 1.0

NO_ROOM = {
    option: Response(503, "The server has no room for another connection.\n", {"Retry-After": "5"})
    for option in ("max_connections", "max_handshakes", "max_connections_per_address")
}
"""What a Host refuses a connection with, by the option that sets its limit."""

# The options whose limits refusals tell of.
LIMITS = {
    LINE_TOO_LONG: "max_request_line",
    HEAD_TOO_LARGE: "max_request_size",
    TOO_MANY_FIELDS: "max_headers",
    TIMED_OUT: "handshake_timeout",
    UNDECIDED: "upgrade_timeout",
    **{response: option for option, response in NO_ROOM.items()},
}

# What the log says to whoever runs the server, and not the answer to the peer.
REMEDIES = {
    FOREIGN_ORIGIN: (
        "Allow them with the option origins=('https://their.example',), or let the proxy in between pass on Host as it "
        "came."
    ),
    **{response: f"The limit is the option {option}." for response, option in LIMITS.items()},
}


class Handshakes:
    """What the opening handshakes of one server and loop share; called, it makes one, as a protocol factory does.

    Attributes:
        open: those that hold a connection now, refused ones too until TCP has ended.
        within_tls: those that wait for their TLS handshake.
        handed_over: the transports of requests that were given to ``http=``, as long as they live.
        refused: how many requests were refused with each status.
        limits_passed: how often each limit was, by the option's name.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.loop_state = LoopState.of(host.loop)
        self.policy = OriginPolicy(host.options.origins)
        self.deflate = _deflate_policy(host.options)
        self.open: set[OpeningHandshake] = set()
        self.handed_over: WeakSet[asyncio.Transport] = WeakSet()
        self.within_tls: set[ref[OpeningHandshake]] = set()
        self.refused: Counter[int] = Counter()
        self.limits_passed: Counter[str] = Counter()
        self.tasks: set[asyncio.Task[None]] = set()
        self._last_logged: dict[Response | None, float] = {}
        self._finished: asyncio.Future[None] | None = None  # while somebody waits for the last one
        options, loop = host.options, host.loop
        self.head_limits = HeadLimits(options.max_request_line, options.max_request_size, options.max_headers)
        timeouts = {
            State.READING: options.handshake_timeout,
            State.DECIDING: options.upgrade_timeout,
            State.ANSWERING: options.write_timeout,
            State.LINGERING: LINGER_TIMEOUT,
            State.CLOSING: options.close_timeout,
            State.OVER: None,
        }
        self.deadlines = tuple(Deadlines(loop, timeouts[state], _time_out) for state in State)

    def __call__(self) -> OpeningHandshake:
        handshake = OpeningHandshake(self)
        self.deadlines[State.READING].add(handshake)
        return handshake

    def make_within_tls(self) -> OpeningHandshake:
        """Make one whose connection_made follows a TLS handshake; if that fails nobody tells, and it is forgotten.

        So all that is kept of it until then is a weak reference, which the clock stands on: asyncio drops the protocol
        of a connection whose TLS handshake failed (before Python 3.13 with the next garbage collection).
        """
        handshake = OpeningHandshake(self)
        clock = handshake.clock = ref(handshake, self._tls_failed)
        self.within_tls.add(clock)
        self.deadlines[State.READING].add(clock)
        return handshake

    def _tls_failed(self, clock: ref[OpeningHandshake]) -> None:
        # Called wherever a garbage collection happens to run, which may be another thread.
        if not self.host.loop.is_closed():
            self.host.loop.call_soon_threadsafe(self._forget, clock)

    def _forget(self, clock: ref[OpeningHandshake]) -> None:
        self.within_tls.discard(clock)
        deadline = self.deadlines[State.READING].discard(clock)
        # TLS has the same timeout, and may be the first to find out: by no more than a clock's grain, a millisecond.
        if deadline is not None and deadline <= self.host.loop.time() + 0.001:
            self.was_silent("")
        self._check_idle()

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
        # On asyncio's loop a turn lies between the making of a protocol, when its clock starts, and connection_made.
        return not self.open and not self.within_tls and not self.deadlines[State.READING]

    def left(self, handshake: OpeningHandshake) -> None:
        """A handshake is over."""
        self.open.discard(handshake)
        self._check_idle()

    def _check_idle(self) -> None:
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

    def log_refusal(self, response: Response, peer: Address) -> None:
        """Count a refusal, and log it: each kind at most once in LOG_INTERVAL.  ``response`` is one of ours."""
        self.refused[response.status] += 1
        if response in LIMITS:
            self.limits_passed[LIMITS[response]] += 1
        if self._may_log(response):
            reason = f"{response.body.decode().rstrip()} {REMEDIES.get(response, '')}".rstrip(" ")
            logger.info("%s: refused with %d: %s", peer, response.status, reason)

    def was_silent(self, peer: Address) -> None:
        """Count, and log as often, a connection that ended because nothing came, or no TLS handshake."""
        self.limits_passed["handshake_timeout"] += 1
        if self._may_log(None):
            logger.info("%s: ended: nothing was asked within handshake_timeout", peer or "TLS")

    def _may_log(self, kind: Response | None) -> bool:
        now = self.host.loop.time()
        if now - self._last_logged.get(kind, -LOG_INTERVAL) < LOG_INTERVAL:
            return False
        self._last_logged[kind] = now
        return True


def _time_out(member: OpeningHandshake | ref[OpeningHandshake]) -> None:
    handshake = member() if isinstance(member, ref) else member
    if handshake is not None:
        handshake.time_out()


def _deflate_policy(options: Options) -> DeflatePolicy | None:
    if options.compression is None:
        return None
    return DeflatePolicy(options.compression == "shared", options.compression_window_bits)
