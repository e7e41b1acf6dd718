"""The Python targets, guided by what of wsev's Python an input reaches: `python -m tests.fuzz.guided TARGET [OPTIONS]`.

Needs atheris (`pip install atheris`; it has wheels for some Pythons).  OPTIONS are libFuzzer's, such as
`-max_total_time=60`.  The compiled core is not instrumented: for it inputs are as blind as `python -m tests.fuzz`'s.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["wsev"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        raise SystemExit(f"{__doc__}\nTARGET is one of {', '.join(TARGETS)}")
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]].check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
