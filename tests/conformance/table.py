"""The table of the docs, from what the runs of `make autobahn` left: `python -m tests.conformance.table [--write]`.

Prints it; exits with 1 if a case is not OK, or nothing was run.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from tests.conformance.cases import GROUPS, verdict_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "build" / "autobahn"
PAGE = ROOT / "docs" / "reference" / "conformance.md"
BEGIN, END = "<!-- begin: make autobahn -->\n", "<!-- end -->\n"


def read() -> dict[str, dict[str, Counter[str]]]:
    """Server -> group -> how many cases have which verdict."""
    found: dict[str, dict[str, Counter[str]]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        for case, verdict in result["verdicts"].items():
            group = found.setdefault(result["server"], {}).setdefault(case.partition(".")[0], Counter())
            group[verdict_of(case, verdict)] += 1
    return found


def table(found: dict[str, dict[str, Counter[str]]]) -> str:
    servers = sorted(found, key=lambda server: (not server.startswith("none"), server))
    lines = ["| group | " + " | ".join(server.replace("-", ", ") for server in servers) + " |"]
    lines.append("|---|" + "---|" * len(servers))
    for group, title in GROUPS.items():
        cells = [
            ", ".join(f"{count} {verdict}" for verdict, count in found[server].get(group, {}).items()) or "-"
            for server in servers
        ]
        lines.append(f"| {group}. {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    found = read()
    text = table(found)
    print(text, end="")
    if "--write" in sys.argv[1:]:
        page = PAGE.read_text()
        before, rest = page.split(BEGIN)
        PAGE.write_text(before + BEGIN + text + END + rest.split(END)[1])
    verdicts = {verdict for groups in found.values() for counts in groups.values() for verdict in counts}
    return 0 if verdicts == {"OK"} else 1


if __name__ == "__main__":
    sys.exit(main())
