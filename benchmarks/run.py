"""A run: all steps of a plan, one after another, each result kept at once, so that a run can be stopped and resumed."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine, results
from benchmarks.candidates import ROOT, Candidate
from benchmarks.measure import Settings, measure
from benchmarks.plan import steps
from benchmarks.progress import Display
from benchmarks.results import Results
from benchmarks.scenarios import Scenario


@dataclass(frozen=True)
class Run:
    scenarios: Sequence[Scenario]
    candidates: Sequence[Candidate]
    rounds: int
    settings: Settings
    path: Path
    """Of the results; what stands there already is not measured again."""
    limit: float | None = None
    """Seconds after which no further measurement is begun."""

    def go(self) -> Results:
        found = results.read(self.path) if self.path.exists() else self._nothing_yet()
        done = {measurement.key for measurement in found.measurements}
        planned = list(steps(self.scenarios, self.candidates, self.rounds))
        missing = [step for step in planned if step.key not in done]
        end = time.monotonic() + (self.limit if self.limit is not None else float("inf"))
        with Display(len(planned), len(planned) - len(missing)) as display:
            for step in missing:
                if time.monotonic() > end:
                    break
                display.begin(step.scenario.name, step.candidate.name, step.round)
                measurement = measure(step.candidate, step.scenario, step.round, self.settings)
                found.measurements.append(measurement)
                found.write(self.path)
                display.end(measurement)
        return found

    def is_complete(self, found: Results) -> bool:
        done = {measurement.key for measurement in found.measurements}
        return all(step.key in done for step in steps(self.scenarios, self.candidates, self.rounds))

    def _nothing_yet(self) -> Results:
        versions = {each.package: each.version for each in self.candidates if each.package}
        return Results(
            machine=machine.describe(),
            settings={"rounds": self.rounds, "seconds": self.settings.seconds, "warm-up": self.settings.warmup},
            versions={"wsev": _commit(), **{name: version or "unknown" for name, version in versions.items()}},
        )


def _commit() -> str:
    """Of the tree, with a + if something in it is not committed."""
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
