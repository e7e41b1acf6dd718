"""Tables in Markdown, one of each group of scenarios: read in a terminal as well as in the docs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.candidates import CANDIDATES
from benchmarks.results import ACTIVE_BYTES, CPU, IDLE_BYTES, OPENED, P50, P99, RATE, Results
from benchmarks.scenarios import GROUPS, SCENARIOS, Load, Scenario
from benchmarks.summary import Row, Spread, summarize

FOOTNOTES = {
    "†": "the load generator was busy for over nine tenths of the time: the server may be capable of more",
    "‡": "others used the CPUs in every round",
}


def tables(results: Results) -> str:
    """All groups of which something was measured, and what their marks mean."""
    pieces = [table for group in GROUPS if (table := group_table(results, group))]
    text = "\n\n".join(pieces)
    marks = [f"{mark} {meaning}." for mark, meaning in FOOTNOTES.items() if mark in text]
    return "\n\n".join([text, *marks])


def group_table(results: Results, group: str) -> str:
    """A heading and a table, or nothing; of many scenarios a column each, of few ones a row for each server in each."""
    measured = {each.scenario for each in results.measurements}
    scenarios = [each for each in SCENARIOS if each.group == group and each.name in measured]
    if not scenarios:
        return ""
    if scenarios[0].load is Load.MEMORY:
        lines = _memory_table(results, scenarios[0])
    elif group == "idle":
        lines = _latency_table(results, scenarios[0])
    else:
        lines = _load_table(results, scenarios)
    return "\n".join([f"### {GROUPS[group]}", "", *lines])


def _load_table(results: Results, scenarios: Sequence[Scenario]) -> list[str]:
    head = ["server", *(_column_title(scenario) for scenario in scenarios)]
    body = []
    for candidate in CANDIDATES:
        cells = [_load_cell(summarize(results.of(each.name, candidate.name))) for each in scenarios]
        if any(cell != NOTHING for cell in cells):
            body.append([candidate.title, *cells])
    return [
        "Thousands of messages a second; in parentheses µs of the server's CPU time for each.",
        "",
        *lines(head, body),
    ]


def _column_title(scenario: Scenario) -> str:
    return f"{scenario.title} (x {scenario.connections})" if scenario.group == "size" else scenario.title


NOTHING = "–"


def _load_cell(row: Row) -> str:
    if not row.figures:
        return NOTHING if row.failure in (None, "not measured") else "failed"
    marks = ("†" if row.is_at_generator_limit else "") + ("‡" if row.is_disturbed else "")
    rate, cpu = row.figures[RATE], row.figures[CPU]
    return f"{number(rate.median / 1000)}{marks} ({number(cpu.median * 1e6)})"


def _latency_table(results: Results, scenario: Scenario) -> list[str]:
    head = ["server", "thousands a second", "CPU, µs each", "median latency, ms", "99th percentile, ms"]
    columns: list[tuple[str, float]] = [(RATE, 1e-3), (CPU, 1e6), (P50, 1e3), (P99, 1e3)]
    return lines(head, _rows(results, scenario, columns))


def _memory_table(results: Results, scenario: Scenario) -> list[str]:
    head = ["server", "idle, bytes", "all echoing, bytes", "opened a second"]
    columns: list[tuple[str, float]] = [(IDLE_BYTES, 1), (ACTIVE_BYTES, 1), (OPENED, 1)]
    return lines(head, _rows(results, scenario, columns))


def _rows(results: Results, scenario: Scenario, columns: Sequence[tuple[str, float]]) -> list[list[str]]:
    body = []
    for candidate in CANDIDATES:
        row = summarize(results.of(scenario.name, candidate.name))
        if row.figures:
            body.append([candidate.title, *(number(row.figures[name].median * unit) for name, unit in columns)])
        elif row.failure != "not measured":
            body.append([candidate.title, "failed", *[NOTHING] * (len(columns) - 1)])
    return body


def lines(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in (head, *body)) for i in range(len(head))]
    align: list[Callable[[str, int], str]] = [str.ljust, *[str.rjust] * (len(head) - 1)]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(align[i](cell, widths[i]) for i, cell in enumerate(cells)) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [line(head), line(rule), *(line(row) for row in body)]


def number(value: float) -> str:
    """Three digits that tell, and no more."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def change(ratio: Spread | None) -> str:
    """Of a ratio, as in -3.1 % (-4.0 to -2.2)."""
    if ratio is None:
        return NOTHING
    median, low, high = ((value - 1) * 100 for value in (ratio.median, ratio.low, ratio.high))
    return f"{median:+.1f} % ({low:+.1f} to {high:+.1f})"


def setting(results: Results) -> str:
    """Where and how it was measured, as a list."""
    lines = [f"- {name}: {value}" for name, value in results.machine.items()]
    versions = ", ".join(f"{name} {value}" for name, value in results.versions.items())
    given = ", ".join(f"{name} {value:g}" for name, value in results.settings.items())
    return "\n".join([*lines, f"- versions: {versions}", f"- settings: {given}"])


def quality(results: Results) -> str:
    """How much the rounds differ, and how quiet the machine was: one sentence."""
    rows = [
        row
        for scenario in SCENARIOS
        for candidate in CANDIDATES
        if CPU in (row := summarize(results.of(scenario.name, candidate.name))).figures
    ]
    if not rows:
        return ""
    widths = sorted(row.figures[CPU].width for row in rows)
    typical, bad = widths[len(widths) // 2], widths[int(len(widths) * 0.95)]
    disturbed = sum(row.is_disturbed for row in rows)
    return (
        f"Between rounds, CPU time per message differs by {typical:.0%} in the median row and {bad:.0%} in the one at "
        f"the 95th percentile; in {disturbed} of {len(rows)} rows no round was undisturbed."
    )


def failures(results: Results) -> str:
    """What was not measured, and why; one line each."""
    found = {(each.scenario, each.candidate): each.failure for each in results.measurements if each.failure}
    return "\n".join(f"{scenario}, {candidate}: {why}" for (scenario, candidate), why in found.items())
