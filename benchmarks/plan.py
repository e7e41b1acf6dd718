"""The order of the measurements: round after round, in each the scenarios, in each the candidates one after another.

So what drifts (temperature, neighbours) meets all candidates alike; and each round begins with another of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.candidates import Candidate
from benchmarks.scenarios import Load, Scenario

MEMORY_ROUNDS = 2  # of memory, which hardly varies and takes long


@dataclass(frozen=True)
class Step:
    round: int
    scenario: Scenario
    candidate: Candidate

    @property
    def key(self) -> tuple[str, str, int]:
        return self.scenario.name, self.candidate.name, self.round


def steps(scenarios: Sequence[Scenario], candidates: Sequence[Candidate], rounds: int) -> Iterator[Step]:
    for number in range(rounds):
        for scenario in scenarios:
            if scenario.load is Load.MEMORY and number >= MEMORY_ROUNDS:
                continue
            taking_part = [candidate for candidate in candidates if candidate.takes_part(scenario)]
            first = number % len(taking_part) if taking_part else 0
            for candidate in taking_part[first:] + taking_part[:first]:
                yield Step(number, scenario, candidate)
