"""The servers that are measured beside one another: how each is started, and in which scenarios it can take part."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.scenarios import Load, Scenario

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "bench"
CERTIFICATE = BUILD / "certificate.pem"

ALL = frozenset(Load)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    name: str
    title: str
    command: tuple[str, ...]
    """Words in which {port} and {mode} are filled in."""
    tls: tuple[str, ...] | None = None
    """Further words for TLS; None: it has none."""
    compressed: tuple[str, ...] | None = None
    """Further words for permessage-deflate; None: it has none."""
    plain: bool = True
    """Whether it is of interest without."""
    loads: frozenset[Load] = ALL
    fanout: str = "broadcast"
    """The mode in which it is started for a fan-out."""
    package: str | None = None
    """Whose version is reported."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def takes_part(self, scenario: Scenario) -> bool:
        if scenario.load not in self.loads or (scenario.is_tls and self.tls is None):
            return False
        return self.compressed is not None if scenario.is_compressed else self.plain

    def command_for(self, scenario: Scenario, port: int) -> list[str]:
        mode = self.fanout if scenario.load is Load.FANOUT else "echo"
        words = self.command + (self.tls or () if scenario.is_tls else ())
        words += self.compressed or () if scenario.is_compressed else ()
        return [word.format(port=port, mode=mode) for word in words]

    @property
    def version(self) -> str | None:
        try:
            return version(self.package) if self.package else None
        except PackageNotFoundError:
            return None


def _program(module: str, *more: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"benchmarks.servers.{module}", "--port", "{port}", "--mode", "{mode}", *more)


_OUR_TLS = ("--certificate", str(CERTIFICATE))

_UVICORN = (
    *(sys.executable, "-m", "uvicorn", "benchmarks.servers.asgi:{mode}", "--host", "127.0.0.1", "--port", "{port}"),
    *("--loop", "uvloop", "--http", "httptools", "--ws", "websockets-sansio", "--ws-per-message-deflate", "false"),
    *("--lifespan", "off", "--log-level", "critical", "--no-access-log", "--backlog", "4096"),
)
_GRANIAN = (
    *(str(Path(sys.executable).with_name("granian")), "benchmarks.servers.rsgi:{mode}", "--interface", "rsgi"),
    *("--host", "127.0.0.1", "--port", "{port}", "--workers", "1", "--runtime-threads", "1", "--loop", "uvloop"),
    *("--ws", "--no-access-log", "--log-level", "error", "--backlog", "16384", "--backpressure", "16384"),
)

CANDIDATES = [
    Candidate(
        name="bare",
        title="C on epoll (the limit)",
        command=(str(BUILD / "bare"), "--port", "{port}", "--mode", "{mode}"),
    ),
    Candidate(
        name="wsev",
        title="wsev",
        command=_program("wsev_server"),
        tls=_OUR_TLS,
        compressed=("--compression", "shared"),
    ),
    Candidate(
        name="wsev-dedicated",
        title="wsev, dedicated contexts",
        command=_program("wsev_server"),
        compressed=("--compression", "dedicated"),
        plain=False,
    ),
    Candidate(
        name="wsev-async",
        title="wsev, `async def`",
        command=_program("wsev_server", "--async"),
        tls=_OUR_TLS,
        loads=frozenset({Load.ECHO}),
    ),
    Candidate(
        name="wsev-publish",
        title="wsev, by a topic",
        command=_program("wsev_server"),
        loads=frozenset({Load.FANOUT}),
        fanout="publish",
    ),
    Candidate(
        name="socketify",
        title="socketify (uWebSockets)",
        command=_program("socketify_server"),
        tls=_OUR_TLS,
        compressed=("--compression", "SHARED_COMPRESSOR"),
        fanout="publish",
        package="socketify",
    ),
    Candidate(name="picows", title="picows", command=_program("picows_server"), tls=_OUR_TLS, package="picows"),
    Candidate(
        name="picows-websockets",
        title="picows.websockets",
        command=_program("picows_websockets_server"),
        loads=frozenset({Load.ECHO, Load.MEMORY}),
        compressed=("--compression", "deflate"),
        plain=False,
    ),
    Candidate(
        name="granian",
        title="granian (RSGI)",
        command=_GRANIAN,
        tls=("--ssl-certificate", str(CERTIFICATE), "--ssl-keyfile", str(CERTIFICATE)),
        package="granian",
    ),
    Candidate(
        name="aiohttp",
        title="aiohttp",
        command=_program("aiohttp_server"),
        tls=_OUR_TLS,
        compressed=("--compression", "deflate"),
        package="aiohttp",
    ),
    Candidate(
        name="websockets",
        title="websockets",
        command=_program("websockets_server"),
        tls=_OUR_TLS,
        compressed=("--compression", "deflate"),
        package="websockets",
    ),
    Candidate(
        name="uvicorn",
        title="uvicorn (ASGI)",
        command=_UVICORN,
        tls=("--ssl-certfile", str(CERTIFICATE), "--ssl-keyfile", str(CERTIFICATE)),
        compressed=("--ws-per-message-deflate", "true"),
        package="uvicorn",
    ),
]


def choose(names: Iterable[str]) -> list[Candidate]:
    """The candidates of these names, or `all` of them.

    Raises:
        ValueError: there is none of such a name.
    """
    known = {candidate.name: candidate for candidate in CANDIDATES}
    wanted = [each for name in names for each in (known if name == "all" else [name])]
    for name in wanted:
        if name not in known:
            raise ValueError(f"no server {name!r}: all, {', '.join(known)}")
    return [candidate for candidate in CANDIDATES if candidate.name in wanted]


def at(candidate: Candidate, name: str, library: Path) -> Candidate:
    """The same under another name, with the wsev that lies in this directory."""
    return replace(candidate, name=name, title=name, environment=environment(library))


def environment(*directories: Path) -> dict[str, str]:
    """Of a server's process: it imports from these, then from this tree, and from its own directory never."""
    path = os.pathsep.join(str(directory) for directory in (*directories, ROOT))
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
