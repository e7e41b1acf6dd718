"""Names the cases of the Autobahn testsuite, what they are run against, and judges what it says of one.

Knows nothing of how it is run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

# The suite only tells what it saw: data behind a Close, and close codes that RFC 6455 does not define.
INFORMATIONAL = ("7.1.6", "7.13.1", "7.13.2")

GROUPS = {
    "1": "Framing",
    "2": "Pings and pongs",
    "3": "Reserved bits",
    "4": "Opcodes",
    "5": "Fragmentation",
    "6": "UTF-8",
    "7": "Closing handshake",
    "9": "Sizes, to 16 MiB and 65,536 fragments",
    "10": "Automatic fragmentation",
    "12": "permessage-deflate, sizes to 128 KiB",
    "13": "permessage-deflate, parameters",
}


class Against(NamedTuple):
    """A server that the suite is run against: echo.py's arguments."""

    compression: str
    loop: str

    def __str__(self) -> str:
        return f"{self.compression}-{self.loop}"


def plain() -> list[Against]:
    """For groups that do not compress; the first alone unless `make autobahn` asks for all."""
    return _wanted([Against("none", "uvloop"), Against("none", "asyncio")])


def compressed() -> list[Against]:
    """For groups that do."""
    return _wanted([Against(mode, loop) for loop in ("uvloop", "asyncio") for mode in ("shared", "dedicated")])


def _wanted(servers: list[Against]) -> list[Against]:
    return servers if os.environ.get("WSEV_AUTOBAHN") == "all" else servers[:1]


def affordable(cases: list[str]) -> list[str]:
    """Of the groups 12 and 13, whose cases are 1,000 messages each: those with small ones, unless all are asked for."""
    if os.environ.get("WSEV_AUTOBAHN") == "all":
        return cases
    return [case for case in cases if int(case.rpartition(".")[2]) in (*range(1, 9), 11)]


def names(counts: Mapping[str, int]) -> list[str]:
    """`{"1.1": 2}` is 1.1.1 and 1.1.2."""
    return [f"{group}.{number}" for group, count in counts.items() for number in range(1, count + 1)]


def verdict_of(case: str, verdict: Mapping[str, str]) -> str:
    """What counts, strictly: the worse of both of the suite's opinions; INFORMATIONAL where it knows nothing else."""
    opinions = {verdict["behavior"], verdict["behaviorClose"]}
    if case in INFORMATIONAL:
        opinions.discard("INFORMATIONAL")
    return "OK" if opinions <= {"OK"} else ", ".join(sorted(opinions - {"OK"}))


def assert_passed(case: str, verdict: Mapping[str, str]) -> None:
    """Strictly: NON-STRICT is a failure too."""
    assert verdict_of(case, verdict) == "OK", verdict
