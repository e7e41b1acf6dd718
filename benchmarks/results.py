"""What was measured, as it is kept: a JSON file of the machine, the settings and every single measurement."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

# Figures of a measurement, by name.  Seconds, bytes, and shares of one CPU; of a message where "per message" is said.
RATE = "rate"  # messages a second; of handshakes cycles
CPU = "cpu"  # of the server, per message
P50 = "p50"
P99 = "p99"
SERVER = "server"  # share of its CPU that the server used
SYSTEM = "system"  # of that, within the kernel
GENERATOR = "generator"  # share of the time in which the load generator had something to do
OTHERS = "others"  # share that others took, of the server's or the generator's CPU, whichever is more
IDLE_BYTES = "idle_bytes"  # of a connection that has spoken once and is silent
ACTIVE_BYTES = "active_bytes"  # of one of very many that all echo
OPENED = "opened"  # opening handshakes a second, while very many are opened


@dataclass(frozen=True)
class Measurement:
    scenario: str
    candidate: str
    round: int
    figures: dict[str, float] = field(default_factory=dict)
    failure: str | None = None
    """Why there are no figures."""

    @property
    def key(self) -> tuple[str, str, int]:
        return self.scenario, self.candidate, self.round


@dataclass
class Results:
    machine: dict[str, str]
    settings: dict[str, float]
    versions: dict[str, str]
    measurements: list[Measurement] = field(default_factory=list)

    def of(self, scenario: str, candidate: str) -> list[Measurement]:
        return [each for each in self.measurements if (each.scenario, each.candidate) == (scenario, candidate)]

    def write(self, path: Path) -> None:
        """Replace the file in one step, so that a run that is stopped leaves a whole one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        head = {"machine": self.machine, "settings": self.settings, "versions": self.versions}
        lines = ",\n".join(json.dumps(_rounded(asdict(each))) for each in self.measurements)
        new.write_text(f'{json.dumps(head, indent=1)[:-2]},\n "measurements": [\n{lines}\n]}}\n')
        new.replace(path)


def read(path: Path) -> Results:
    data = json.loads(path.read_text())
    measurements = [Measurement(**each) for each in data.pop("measurements")]
    return Results(**data, measurements=measurements)


def _rounded(measurement: dict[str, object]) -> dict[str, object]:
    figures = measurement["figures"]
    assert isinstance(figures, dict)
    return {**measurement, "figures": {name: float(f"{value:.5g}") for name, value in figures.items()}}
