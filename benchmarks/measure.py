"""One measurement: a server is started, the load generator runs against it, figures come out."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import machine
from benchmarks.build import GENERATOR
from benchmarks.candidates import Candidate
from benchmarks.process import ServerError, ServerProcess
from benchmarks.results import (
    ACTIVE_BYTES,
    CPU,
    IDLE_BYTES,
    OPENED,
    OTHERS,
    P50,
    P99,
    RATE,
    SERVER,
    SYSTEM,
    Measurement,
)
from benchmarks.results import GENERATOR as GENERATOR_SHARE
from benchmarks.scenarios import Load, Scenario
from benchmarks.summary import DISTURBED

LIMIT = 90.0  # seconds that the load generator may take beyond what is measured
CALM = 0.7  # seconds until what a server does later, such as freeing, is done
ACTIVE = 1.0  # seconds of echoing on all connections before memory is read


@dataclass(frozen=True)
class Settings:
    seconds: float
    warmup: float = 0.3
    server_cpu: int = 0
    generator_cpu: int = 1
    quiet: float = 3.0
    """Seconds that are waited, at most, for the machine to become quiet."""
    attempts: int = 3
    """Of which the first undisturbed one counts, or else the least disturbed one."""


class GeneratorError(Exception):
    """It failed, or had an answer that was not right; its words."""


def measure(candidate: Candidate, scenario: Scenario, number: int, settings: Settings) -> Measurement:
    """One measurement, repeated if others disturbed it."""
    best: Measurement | None = None
    for _ in range(settings.attempts):
        machine.wait_until_quiet((settings.server_cpu, settings.generator_cpu), settings.quiet)
        try:
            with ServerProcess(candidate, scenario, settings.server_cpu) as server:
                figures = (_memory if scenario.load is Load.MEMORY else _load)(server, scenario, settings)
        except (GeneratorError, ServerError, OSError) as error:
            return Measurement(scenario.name, candidate.name, number, failure=str(error))
        if best is None or figures.get(OTHERS, 0) < best.figures[OTHERS]:
            best = Measurement(scenario.name, candidate.name, number, figures)
        if figures.get(OTHERS, 0) <= DISTURBED:
            break
    assert best is not None
    return best


def _load(server: ServerProcess, scenario: Scenario, settings: Settings) -> dict[str, float]:
    pids = [word for pid in server.pids() for word in ("--server-pid", str(pid))]
    command = _command(scenario.arguments, server, settings)
    try:
        done = subprocess.run(
            [*command, "--seconds", str(settings.seconds), "--warmup", str(settings.warmup), *pids],
            capture_output=True,
            text=True,
            timeout=settings.seconds + settings.warmup + LIMIT,
        )
    except subprocess.TimeoutExpired:
        raise GeneratorError("it did not end") from None
    if done.returncode or not done.stdout:
        raise GeneratorError(_first_line(done.stderr) or f"exit status {done.returncode}")
    result = json.loads(done.stdout)
    if result["errors"] or not result["messages"]:
        raise GeneratorError(_first_line(done.stderr) or "no message was answered")
    return figures_of(result, settings)


def figures_of(result: dict[str, Any], settings: Settings) -> dict[str, float]:
    """From what the load generator says to the figures that are kept."""
    seconds, messages = result["seconds"], result["messages"]
    used = {settings.server_cpu: result["server_cpu"], settings.generator_cpu: result["own_cpu"]}
    others = max((result["cpu_busy"][cpu] + result["cpu_stolen"][cpu] - own) / seconds for cpu, own in used.items())
    return {
        RATE: messages / seconds,
        CPU: result["server_cpu"] / messages,
        P50: result["latency"]["p50"],
        P99: result["latency"]["p99"],
        SERVER: result["server_cpu"] / seconds,
        SYSTEM: result["server_system"],
        GENERATOR_SHARE: result["own_busy"] / seconds,
        OTHERS: max(0.0, others),
    }


def _memory(server: ServerProcess, scenario: Scenario, settings: Settings) -> dict[str, float]:
    """Of connections that are held: when each has spoken once and is silent, and while all echo."""
    # What a server makes on first use is not a connection's.
    first = _command(["echo", "--connections", "10", "--seconds", "0.2"], server, settings)
    subprocess.run(first, check=True, capture_output=True)
    time.sleep(CALM)
    before = server.private_memory()
    with _Held(_command(scenario.arguments, server, settings)) as held:
        opened = held.answer()
        held.say("begin", "end")
        held.answer()
        time.sleep(CALM)
        idle = server.private_memory()
        held.say("begin")
        time.sleep(ACTIVE)
        active = server.private_memory()
        held.say("end")
        if held.answer()["errors"]:
            raise GeneratorError("not every connection was answered")
    return {
        IDLE_BYTES: (idle - before) / scenario.connections,
        ACTIVE_BYTES: (active - before) / scenario.connections,
        OPENED: scenario.connections / opened["seconds"],
    }


class _Held:
    """The load generator while it holds connections."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> _Held:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate(timeout=LIMIT)

    def say(self, *words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.writelines(f"{word}\n" for word in words)
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise GeneratorError("the connections could not be held")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _command(arguments: Sequence[str], server: ServerProcess, settings: Settings) -> list[str]:
    return [str(GENERATOR), *arguments, "--port", str(server.port), "--cpu", str(settings.generator_cpu)]


def _first_line(text: str) -> str:
    return text.partition("\n")[0].removeprefix("loadgen: ")
