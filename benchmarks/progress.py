"""What a run shows of itself while it runs: a bar, what is measured just now, and each result as a line."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.report import number
from benchmarks.results import CPU, GENERATOR, IDLE_BYTES, P99, RATE, SERVER, Measurement
from benchmarks.summary import is_disturbed


class Display:
    """As a context manager; on a terminal the bar stays at the bottom, elsewhere there are the lines only."""

    def __init__(self, total: int, done: int = 0) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self._task = self._progress.add_task("", total=total, completed=done)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, scenario: str, candidate: str, number_of_round: int) -> None:
        self._progress.update(self._task, description=f"round {number_of_round + 1}  {scenario}  {candidate}")

    def end(self, measurement: Measurement) -> None:
        self._progress.print(line(measurement), markup=False)
        self._progress.advance(self._task)


def line(measurement: Measurement) -> str:
    figures = measurement.figures
    head = f"{measurement.round + 1:2}  {measurement.scenario:18} {measurement.candidate:13}"
    if measurement.failure is not None:
        return f"{head} failed: {measurement.failure}"
    if IDLE_BYTES in figures:
        return f"{head} {figures[IDLE_BYTES]:10,.0f} bytes a connection"
    text = (
        f"{head} {figures[RATE]:10,.0f}/s {number(figures[CPU] * 1e6):>8} us  p99 {number(figures[P99] * 1e3):>7} ms"
        f"  server {figures[SERVER]:4.0%}  generator {figures[GENERATOR]:4.0%}"
    )
    return text + ("  disturbed" if is_disturbed(measurement) else "")
