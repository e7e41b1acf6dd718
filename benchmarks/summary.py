"""From single measurements to what a table says of them: medians and spreads, of undisturbed ones if there are any."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.results import GENERATOR, OTHERS, Measurement

DISTURBED = 0.08  # share of a CPU that others took; the kernel counts in ticks of 0.01 s, so less is within its error
GENERATOR_LIMIT = 0.9  # share of the time; above it the generator may be what is measured


@dataclass(frozen=True)
class Spread:
    """The median of some values, and the least and the greatest."""

    median: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """From the least to the greatest, as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


@dataclass(frozen=True)
class Row:
    """One candidate in one scenario."""

    figures: dict[str, Spread]
    rounds: int
    """That count."""
    failure: str | None = None
    is_disturbed: bool = False
    """Nothing else could be had."""

    @property
    def is_at_generator_limit(self) -> bool:
        return GENERATOR in self.figures and self.figures[GENERATOR].median > GENERATOR_LIMIT


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def is_disturbed(measurement: Measurement) -> bool:
    return measurement.figures.get(OTHERS, 0.0) > DISTURBED


def summarize(measurements: Sequence[Measurement]) -> Row:
    """Undisturbed measurements count; if there is none, all do, and the row says so."""
    whole = [each for each in measurements if each.failure is None]
    if not whole:
        return Row({}, 0, failure=measurements[-1].failure if measurements else "not measured")
    undisturbed = [each for each in whole if not is_disturbed(each)]
    counted = undisturbed or whole
    names = dict.fromkeys(name for each in counted for name in each.figures)
    figures = {name: spread([each.figures[name] for each in counted if name in each.figures]) for name in names}
    failures = [each.failure for each in measurements if each.failure is not None]
    return Row(figures, len(counted), failures[-1] if failures else None, not undisturbed)


class Verdict(StrEnum):
    SLOWER = "slower"
    FASTER = "faster"
    NO_DIFFERENCE = "no difference"
    TOO_FEW = "too few rounds"


FEWEST_ROUNDS = 5
SURE = 0.8  # share of the rounds that must agree; 12 of 15 do so by chance once in 28 times
SMALLEST = 0.01  # what is less is not worth a word


def verdict_of(ratios: Sequence[float]) -> Verdict:
    """Of head over base, whatever the distribution of noise."""
    if len(ratios) < FEWEST_ROUNDS:
        return Verdict.TOO_FEW
    change = statistics.median(ratios) - 1
    agree = sum((ratio > 1) == (change > 0) for ratio in ratios)
    if abs(change) < SMALLEST or agree < SURE * len(ratios):
        return Verdict.NO_DIFFERENCE
    return Verdict.SLOWER if change > 0 else Verdict.FASTER


def ratios(base: Sequence[Measurement], head: Sequence[Measurement], figure: str) -> list[float]:
    """Head over base, round by round: both were measured within seconds, so what drifts over a run cancels out."""
    of_base = {each.round: each.figures[figure] for each in base if each.figures.get(figure) and not is_disturbed(each)}
    of_head = {each.round: each.figures[figure] for each in head if figure in each.figures and not is_disturbed(each)}
    return [of_head[number] / of_base[number] for number in of_head if number in of_base]
