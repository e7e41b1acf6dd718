"""Prints the tables of options and flags for README and docs, from what `wsev.options` and `wsev serve` have.

They stand between two comments in the documents; `python docs/options_table.py --write` renews them, and
tests/test_examples.py compares them.
"""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from pathlib import Path

from wsev.cli.serve import FLAGS
from wsev.options import Listening, Options, Rule

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
DOCUMENTS = [ROOT / "README.md", REFERENCE / "options.md", REFERENCE / "command-line.md"]
PLACE = re.compile(r"(<!-- table of (\w+): made by docs/options_table.py -->\n).*?(<!-- end of table -->)", re.DOTALL)


def default_of(value: object, unit: str) -> str:
    """Write a default as a reader says it: 1 MiB, 60 s, None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"`{value!r}`"
    if unit == "seconds":
        return f"{value:g} s"
    if unit == "bytes":
        for size, name in (1 << 20, "MiB"), (1 << 10, "KiB"):
            if value % size == 0:
                return f"{value // size:g} {name}"
    return f"{value:,}" if value >= 10_000 else f"{value}"


def table(of: type[Options] | type[Listening]) -> str:
    lines = ["| option | default | meaning |", "| --- | --- | --- |"]
    for item in fields(of):
        rule: Rule = item.metadata["rule"]
        text = " ".join(rule.text.split()).replace("|", "\\|")
        lines.append(f"| `{item.name}` | {default_of(item.default, rule.unit)} | {text} |")
    return "\n".join(lines) + "\n"


def table_of_flags() -> str:
    lines = ["| flag | variable | meaning |", "| --- | --- | --- |"]
    for flag in FLAGS:
        names = ", ".join(f"`{name}`" for name in (*flag.opts, *flag.secondary_opts))
        lines.append(f"| {names} | `{flag.variable}` | {' '.join((flag.help or '').split())} |")
    return "\n".join(lines) + "\n"


TABLES = {"Options": table(Options), "Listening": table(Listening), "flags": table_of_flags()}


def renew(document: str) -> str:
    """Return the document with its tables as they should be."""
    return PLACE.sub(lambda place: place[1] + TABLES[place[2]] + place[3], document)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        for path in DOCUMENTS:
            path.write_text(renew(path.read_text()))
    else:
        print(*TABLES.values(), sep="\n")
