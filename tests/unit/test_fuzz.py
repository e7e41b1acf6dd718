"""The fuzzers in Python: what was a finding once holds, a seed makes the same inputs, and a finding shows."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz import __main__ as program
from tests.fuzz.targets import TARGETS, Target

CORPUS = sorted(path for path in program.CORPUS.glob("*/*") if path.parent.name in TARGETS)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_a_finding_holds(path: Path) -> None:
    TARGETS[path.parent.name].check(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_makes_the_same_inputs_and_they_hold(name: str) -> None:
    target = TARGETS[name]
    first, second = Random(name), Random(name)
    for _ in range(100):
        data = target.make(first)
        assert data == target.make(second)
        target.check(data)


def test_a_finding_ends_the_run_and_leaves_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(data: bytes) -> None:
        assert data != b"bad"

    monkeypatch.setattr(program, "BUILD", tmp_path)
    inputs = iter([b"good", b"bad", b"never made"])
    assert not program.fuzz("frames", Target(lambda random: next(inputs), refuse), 10, 60.0, 1)
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == b"bad"
    assert str(path) in capsys.readouterr().err
