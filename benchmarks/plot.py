"""A drawing for the docs: what a message costs each server, as bars; SVG, made of text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.candidates import CANDIDATES
from benchmarks.report import number
from benchmarks.results import CPU, IDLE_BYTES, Results
from benchmarks.scenarios import SCENARIOS, Load
from benchmarks.summary import summarize

# Scenario -> the heading of its bars.
PANELS = {
    "connections/100": "Echo, 64 bytes, 100 connections: µs of CPU a message",
    "depth/16": "The same with 16 in flight on each: µs of CPU a message",
    "size/16KiB": "Echo, 16 KiB, 50 connections: µs of CPU a message",
    "fanout/x1": "One sends, 1,000 receive: µs of CPU a delivery",
    "handshakes/plain": "Connect, echo once, close: µs of CPU",
    "memory": "An idle connection: bytes",
}
COLUMNS = 2
WIDTH, NAME, BAR, ROW, HEAD, GAP = 470, 150, 230, 19, 30, 18  # pixels
OURS, LIMIT, OTHERS = "#2f6fb5", "#8a8a8a", "#c3cad3"


def svg(results: Results) -> str:
    """Of what was measured; a panel for each scenario that was."""
    panels = [panel for name in PANELS if (panel := _bars(results, name))]
    heights = [HEAD + ROW * len(bars) + GAP for _, bars in panels]
    rows = [max(heights[at : at + COLUMNS]) for at in range(0, len(heights), COLUMNS)]
    width, height = COLUMNS * WIDTH, sum(rows) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for index, (title, bars) in enumerate(panels):
        x = index % COLUMNS * WIDTH + GAP
        y = sum(rows[: index // COLUMNS]) + GAP
        parts += _panel(x, y, title, bars)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bars(results: Results, name: str) -> tuple[str, list[tuple[str, str, float]]] | None:
    """Title, and of each server its name for people and for colours, and its value."""
    scenario = next(each for each in SCENARIOS if each.name == name)
    figure, unit = (IDLE_BYTES, 1.0) if scenario.load is Load.MEMORY else (CPU, 1e6)
    bars = []
    for candidate in CANDIDATES:
        row = summarize(results.of(name, candidate.name))
        if figure in row.figures:
            bars.append((candidate.title, candidate.name, row.figures[figure].median * unit))
    return (PANELS[name], bars) if bars else None


def _panel(x: int, y: int, title: str, bars: Sequence[tuple[str, str, float]]) -> list[str]:
    most = max(value for _, _, value in bars)
    parts = [f'<text x="{x}" y="{y + 10}" font-weight="600" fill="#222">{escape(title)}</text>']
    for row, (name, key, value) in enumerate(bars):
        top = y + HEAD - 8 + row * ROW
        color = OURS if key.startswith("wsev") else LIMIT if key == "bare" else OTHERS
        length = max(1.0, BAR * value / most)
        parts += [
            f'<text x="{x + NAME - 8}" y="{top + 11}" text-anchor="end" fill="#222">{escape(name)}</text>',
            f'<rect x="{x + NAME}" y="{top}" width="{length:.1f}" height="{ROW - 5}" fill="{color}"/>',
            f'<text x="{x + NAME + length + 5:.1f}" y="{top + 11}" fill="#555">{number(value)}</text>',
        ]
    return parts
