"""Stats: what a server counts, and how the counts of several workers are told and added up.

Between processes they are Figures, plain numbers by name, which the scoreboard of workers/ adds without knowing what
they mean.  Here alone stands which of them say what is now, and end with their worker, and which go on for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from wsev.workers.scoreboard import Figures

__all__ = ["Stats", "figures_of", "stats_of"]

OF_NOW = ("connections", "unsent")
OF_ALL_WORKERS = ("workers", "restarts")  # nobody counts them for himself
BY_CODE = ("handshakes", "closes")  # whose names are numbers; JSON makes strings of them


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What a server has counted since its start; sizes in bytes."""

    connections: int
    """Open now."""
    handshakes: Mapping[int, int]
    """Connections by the HTTP status that their handshake was answered with: 101 the accepted ones; the others those
    that were refused, be it by ``on_upgrade``, for a limit, or as no request for upgrade where there is no
    ``on_request``.  What ``on_request`` answered and what ``http=`` took is not counted."""
    messages_in: int
    messages_out: int
    bytes_in: int
    """Received, frame headers included."""
    bytes_out: int
    """Sent, frame headers and the answers to requests for upgrade included."""
    pings_in: int
    pongs_in: int
    unsent: int
    """Taken and not yet given to the kernel, of all connections."""
    batched_sends: int
    """Sends that shared a system call with others, by io_uring; 0 where the system or a sandbox does not allow it."""
    dropped: int
    """Messages that ``slow_consumer="drop"`` refused."""
    closes: Mapping[int, int]
    """Connections that ended, by ``Connection.close_code``."""
    limits: Mapping[str, int]
    """How often each limit was passed, by the option's name."""
    broker_in: int
    """Messages that were published in other workers, or by a ``Publisher``, and came here."""
    broker_dropped: int
    """Messages that could not be carried to another worker, each counted once for each, or that found no room before
    a callback of ``Server.subscribe``."""
    workers: int = 1
    """Worker processes that are counted here."""
    restarts: int = 0
    """Worker processes that were started because one had ended by itself; 0 in the figures of one worker."""


def figures_of(stats: Stats) -> tuple[Figures, Figures]:
    """The stats of one worker as figures: those of now, and those that only grow."""
    figures = {name: value for name, value in asdict(stats).items() if name not in OF_ALL_WORKERS}
    of_now = {name: figures.pop(name) for name in OF_NOW}
    return of_now, figures


def stats_of(of_now: Figures, growing: Figures, *, workers: int, restarts: int) -> Stats:
    """The stats that figures, added up over workers, stand for."""
    found: dict[str, Any] = {**of_now, **growing}
    for name in BY_CODE:
        found[name] = {int(code): count for code, count in cast(Mapping[str, int], found[name]).items()}
    return Stats(**found, workers=workers, restarts=restarts)
