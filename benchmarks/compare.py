"""Whether a commit made wsev slower: CPU time a message of one against another, round by round."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report import change, lines, number
from benchmarks.results import CPU, IDLE_BYTES, Results
from benchmarks.scenarios import Load, Scenario
from benchmarks.summary import Verdict, ratios, spread, summarize, verdict_of

BASE, HEAD = "base", "head"


def figure_of(scenario: Scenario) -> tuple[str, float]:
    """What is compared, and by what it is multiplied to be shown."""
    return (IDLE_BYTES, 1.0) if scenario.load is Load.MEMORY else (CPU, 1e6)


def table(found: Results, scenarios: Sequence[Scenario]) -> str:
    head = ["scenario", "base", "head", "head against base (least to most)", "rounds", "verdict"]
    body = []
    for scenario in scenarios:
        name, unit = figure_of(scenario)
        pairs = ratios(found.of(scenario.name, BASE), found.of(scenario.name, HEAD), name)
        cells = []
        for candidate in (BASE, HEAD):
            row = summarize(found.of(scenario.name, candidate))
            cells.append(number(row.figures[name].median * unit) if name in row.figures else "failed")
        ratio = spread(pairs) if pairs else None
        body.append([scenario.name, *cells, change(ratio), str(len(pairs)), verdict_of(pairs).value])
    text = "\n".join(lines(head, body))
    return f"Microseconds of CPU a message (memory: bytes an idle connection).\n\n{text}"


def slower(found: Results, scenarios: Sequence[Scenario], limit: float) -> list[str]:
    """The scenarios in which head is slower by more than this share, beyond noise."""
    names = []
    for scenario in scenarios:
        pairs = ratios(found.of(scenario.name, BASE), found.of(scenario.name, HEAD), figure_of(scenario)[0])
        if verdict_of(pairs) is Verdict.SLOWER and spread(pairs).median > 1 + limit:
            names.append(scenario.name)
    return names
