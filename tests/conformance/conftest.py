"""Runs the Autobahn testsuite's client (`wstest`) against an echo server, once for each file of tests here.

A file is also what pytest-xdist hands to one process (`--dist=loadfile`), so that two files run on two cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from tests.conformance.cases import Against
from tests.conformance.table import RESULTS

HERE = Path(__file__).parent
CACHED = HERE.parents[1] / ".cache" / "autobahn" / "bin" / "wstest"  # where `make autobahn` puts it

Verdict = Mapping[str, str]


class RunSuite(Protocol):
    def __call__(self, cases: Iterable[str], server: Against) -> Mapping[str, Verdict]: ...


@pytest.fixture(scope="session")
def wstest() -> str:
    found = os.environ.get("WSTEST") or shutil.which("wstest") or (str(CACHED) if CACHED.exists() else None)
    if found is None:
        pytest.skip("no wstest: `make autobahn` installs it (needs a Python 2.7), or set WSTEST to where it is")
    return found


@contextlib.contextmanager
def echoing(arguments: Iterable[str]) -> Iterator[int]:
    """The port of the echo server, in a process of its own, as it would run."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "echo.py"), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        # Leaving the block closes its input, which ends it, and waits.
    assert process.returncode == 0


@pytest.fixture(scope="session")
def run_suite(wstest: str, tmp_path_factory: pytest.TempPathFactory) -> RunSuite:
    """Return a function that runs some cases, such as "1.*", and returns what the suite thinks of each of them."""

    def run(cases: Iterable[str], server: Against) -> Mapping[str, Verdict]:
        directory = tmp_path_factory.mktemp("autobahn")
        with echoing(server) as port:
            spec = {
                "outdir": str(directory / "reports"),
                "servers": [{"agent": "wsev", "url": f"ws://127.0.0.1:{port}"}],
                "cases": list(cases),
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
            (directory / "spec.json").write_text(json.dumps(spec))
            command = [wstest, "--mode", "fuzzingclient", "--spec", str(directory / "spec.json")]
            subprocess.run(command, check=True, cwd=directory, stdout=subprocess.DEVNULL)
        verdicts: Mapping[str, Verdict] = json.loads((directory / "reports" / "index.json").read_text())["wsev"]
        kept = {
            case: {name: opinion for name, opinion in verdict.items() if name.startswith("behavior")}
            for case, verdict in verdicts.items()
        }
        groups = "-".join(sorted({case.partition(".")[0] for case in kept}, key=int))
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{server}-{groups}.json").write_text(json.dumps({"server": str(server), "verdicts": kept}))
        return verdicts

    return run
