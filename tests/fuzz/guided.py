"""Targets guided by what of wsev's Python an input reaches: `python -m tests.fuzz.guided request|deflate [OPTIONS]`.

Needs atheris (`pip install atheris`; it has wheels for some Pythons).  OPTIONS are libFuzzer's, such as
`-max_total_time=60`.  The compiled core is not instrumented, so the codec has nothing to be guided by here.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["wsev"]):
    from tests.fuzz.targets import TARGETS, check_deflated

CHECKS = {"request": TARGETS["request"].check, "deflate": partial(check_deflated, is_made=False)}
SEEDS = 300  # inputs of the target's own making, which others are made of
BUILD = Path(__file__).parents[2] / "build" / "fuzz"


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in CHECKS:
        raise SystemExit(__doc__)
    name = sys.argv[1]
    corpus = BUILD / f"guided-{name}"
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in range(SEEDS):
        (corpus / f"seed-{seed}").write_bytes(TARGETS[name].make(Random(seed)))
    atheris.Setup([sys.argv[0], f"-artifact_prefix={BUILD}/{name}-", *sys.argv[2:], str(corpus)], CHECKS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
