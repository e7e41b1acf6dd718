"""The scenarios: what load each is, to which tables it belongs, and how they are chosen by name.

A scenario says nothing of servers (servers.py) and nothing of time: rounds and seconds are the run's (plan.py).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

KIB = 1024
MIB = 1024 * KIB


class Load(StrEnum):
    """A mode of the load generator."""

    ECHO = "echo"
    FANOUT = "broadcast"
    HANDSHAKES = "churn"
    MEMORY = "hold"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    name: str
    group: str
    """The table in which it stands."""
    load: Load
    connections: int
    idle: int = 0
    """Further connections, which stay silent."""
    depth: int = 1
    """Messages in flight: of a connection, of a fan-out in all."""
    size: int = 64
    """Bytes of a message."""
    is_text: bool = False
    is_tls: bool = False
    is_compressed: bool = False
    """permessage-deflate, both ways; payloads are JSON then."""

    @property
    def title(self) -> str:
        """What is not the same in the whole of its group."""
        return self.name.partition("/")[2] or self.name

    @property
    def arguments(self) -> list[str]:
        """Of the load generator."""
        words = [self.load, "--connections", self.connections, "--idle", self.idle, "--depth", self.depth]
        flags = {"--text": self.is_text, "--tls": self.is_tls, "--compressed": self.is_compressed}
        return [str(word) for word in (*words, "--size", self.size, *(flag for flag in flags if flags[flag]))]


GROUPS = {
    "connections": "Echo of 64 bytes, one in flight on each connection, by the number of connections",
    "depth": "Echo of 64 bytes on 100 connections, by the messages in flight on each",
    "size": "Echo, one in flight on each connection, by the size of a message (and the number of connections)",
    "text": "Echo of text (ASCII) instead of binary messages, on 100 connections",
    "tls": "Echo over TLS 1.3, on 100 connections",
    "compressed": "Echo of JSON with permessage-deflate, one in flight on each of 100 connections",
    "idle": "Echo of 64 bytes on 100 connections, beside idle ones",
    "fanout": "One sends, 1,000 receive; a message counted is one that one connection received",
    "handshakes": "Connect, opening handshake, one echo, closing handshake, end of TCP; 64 at the same time",
    "memory": "10,000 connections held: bytes of the server's private memory for each",
    "memory-compressed": "The same, with messages of 1 KiB under permessage-deflate",
}


def _echo(name: str, connections: int = 100, **more: Any) -> Scenario:
    return Scenario(name=name, group=name.partition("/")[0], load=Load.ECHO, connections=connections, **more)


SCENARIOS = [
    _echo("connections/1", 1),
    _echo("connections/10", 10),
    _echo("connections/100", 100),
    _echo("connections/1000", 1000),
    _echo("connections/10000", 10_000),
    _echo("depth/4", depth=4),
    _echo("depth/16", depth=16),
    _echo("depth/64", depth=64),
    _echo("size/16", size=16),
    _echo("size/1KiB", size=KIB),
    _echo("size/16KiB", 50, size=16 * KIB),
    _echo("size/128KiB", 16, size=128 * KIB),
    _echo("size/1MiB", 4, size=MIB),
    _echo("text/64", is_text=True),
    _echo("text/64x16", is_text=True, depth=16),
    _echo("text/16KiB", is_text=True, size=16 * KIB),
    _echo("tls/64", is_tls=True),
    _echo("tls/64x16", is_tls=True, depth=16),
    _echo("tls/16KiB", is_tls=True, size=16 * KIB),
    _echo("compressed/1KiB", is_text=True, is_compressed=True, size=KIB),
    _echo("compressed/16KiB", is_text=True, is_compressed=True, size=16 * KIB),
    _echo("idle/9900", idle=9_900),
    Scenario(name="fanout/x1", group="fanout", load=Load.FANOUT, connections=1000),
    Scenario(name="fanout/x8", group="fanout", load=Load.FANOUT, connections=1000, depth=8),
    Scenario(name="handshakes/plain", group="handshakes", load=Load.HANDSHAKES, connections=64),
    Scenario(name="handshakes/tls", group="handshakes", load=Load.HANDSHAKES, connections=64, is_tls=True),
    Scenario(name="memory", group="memory", load=Load.MEMORY, connections=10_000),
    Scenario(
        name="memory-compressed",
        group="memory-compressed",
        load=Load.MEMORY,
        connections=10_000,
        size=KIB,
        is_text=True,
        is_compressed=True,
    ),
]

# What tells the most in a minute or two.
CORE = ("connections/100", "depth/16", "size/16KiB", "text/64x16", "fanout/x1", "handshakes/plain")


def choose(patterns: Iterable[str]) -> list[Scenario]:
    """The scenarios that one of the patterns names: a name, a group, `core`, `all`, or a pattern of the shell's.

    Raises:
        ValueError: a pattern names none.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        found = {scenario.name for scenario in SCENARIOS if _is_named(scenario, pattern)}
        if not found:
            raise ValueError(
                f"no scenario {pattern!r}: core, all, a group ({', '.join(GROUPS)}), or as in connections/1*"
            )
        chosen |= found
    return [scenario for scenario in SCENARIOS if scenario.name in chosen]


def _is_named(scenario: Scenario, pattern: str) -> bool:
    if pattern == "core":
        return scenario.name in CORE
    return pattern in ("all", scenario.group) or fnmatch.fnmatchcase(scenario.name, pattern)
