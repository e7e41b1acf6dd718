"""The benchmark suite's own arithmetic: what counts, what a comparison says, and what is drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import compare, plot, report, results, scenarios
from benchmarks.results import CPU, GENERATOR, OTHERS, P50, P99, RATE, Measurement, Results
from benchmarks.summary import Verdict, ratios, summarize, verdict_of

SCENARIO = "connections/100"


def measured(
    candidate: str, cpus: Sequence[float], *, others: float = 0.0, scenario: str = SCENARIO
) -> list[Measurement]:
    """A measurement a round, in microseconds."""
    fixed = {RATE: 1000.0, P50: 0.001, P99: 0.002, GENERATOR: 0.5, OTHERS: others}
    return [Measurement(scenario, candidate, number, {**fixed, CPU: cpu * 1e-6}) for number, cpu in enumerate(cpus)]


def made(*measurements: list[Measurement]) -> Results:
    flat = [each for group in measurements for each in group]
    return Results(machine={"date": "today"}, settings={"rounds": 5}, versions={"wsev": "abc"}, measurements=flat)


def test_a_row_is_the_median_of_undisturbed_rounds() -> None:
    row = summarize([*measured("wsev", [3, 5, 4]), *measured("wsev", [100], others=0.5)])
    assert row.figures[CPU].median == pytest.approx(4e-6)
    assert (row.rounds, row.is_disturbed) == (3, False)


def test_where_all_rounds_were_disturbed_all_count_and_that_is_said() -> None:
    row = summarize(measured("wsev", [3, 5], others=0.5))
    assert (row.rounds, row.is_disturbed) == (2, True)


def test_a_failure_is_no_figure() -> None:
    row = summarize([Measurement(SCENARIO, "wsev", 0, failure="it did not start")])
    assert (row.figures, row.failure) == ({}, "it did not start")


def test_ratios_are_of_the_same_round() -> None:
    base, head = measured("base", [1, 2, 4]), measured("head", [2, 2, 2])
    assert ratios(base, head, CPU) == pytest.approx([2, 1, 0.5])
    assert ratios(base[:1], head[1:], CPU) == []


@pytest.mark.parametrize(
    "pairs, verdict",
    [
        ([1.1] * 5, Verdict.SLOWER),
        ([0.9] * 5, Verdict.FASTER),
        ([1.1, 1.1, 1.1, 1.1, 0.5], Verdict.SLOWER),
        ([1.1, 1.1, 1.1, 0.9, 0.9], Verdict.NO_DIFFERENCE),
        ([1.005] * 15, Verdict.NO_DIFFERENCE),
        ([1.5] * 4, Verdict.TOO_FEW),
        ([], Verdict.TOO_FEW),
    ],
)
def test_a_verdict_needs_rounds_that_agree(pairs: list[float], verdict: Verdict) -> None:
    assert verdict_of(pairs) is verdict


def test_a_comparison_names_what_became_slower() -> None:
    chosen = scenarios.choose([SCENARIO, "depth/16"])
    found = made(
        measured("base", [10] * 6),
        measured("head", [12] * 6),
        measured("base", [1] * 6, scenario="depth/16"),
        measured("head", [1] * 6, scenario="depth/16"),
    )
    table = compare.table(found, chosen)
    assert "| connections/100 | 10.0 | 12.0 |" in table
    assert "+20.0 %" in table
    assert compare.slower(found, chosen, 0.05) == [SCENARIO]
    assert compare.slower(found, chosen, 0.25) == []


def test_a_drawing_is_well_formed_and_has_a_bar_for_each_server() -> None:
    found = made(measured("bare", [3, 3, 3]), measured("wsev", [4, 4, 4]), measured("websockets", [15, 15, 15]))
    root = ElementTree.fromstring(plot.svg(found))
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"wsev", "websockets", "4.00", "15.0"} <= set(texts)
    widths = [float(element.attrib["width"]) for element in root.iter() if element.tag.endswith("rect")][1:]
    assert widths == [pytest.approx(plot.BAR * value / 15, abs=0.1) for value in (3, 4, 15)]


def test_tables_hold_what_was_measured_and_nothing_else() -> None:
    text = report.tables(made(measured("wsev", [4, 4, 4])))
    assert "| wsev" in text
    assert "1.00 (4.00)" in text
    assert "granian" not in text


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    found = made(measured("wsev", [4]), [Measurement(SCENARIO, "bare", 0, failure="no gcc")])
    found.write(tmp_path / "results.json")
    assert results.read(tmp_path / "results.json") == found


@pytest.mark.parametrize("pattern", ["core", "all", "depth", "connections/1*", SCENARIO])
def test_scenarios_are_chosen_by_name_group_and_pattern(pattern: str) -> None:
    assert scenarios.choose([pattern])


def test_a_scenario_that_is_none_is_an_error_that_names_the_groups() -> None:
    with pytest.raises(ValueError, match=r"no scenario 'colour'.*depth"):
        scenarios.choose(["colour"])
