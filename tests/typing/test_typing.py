"""The public API is typed: two checkers accept what users write, and find what is wrong in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parent / "public_api.py"


def check(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_mypy_accepts_it() -> None:
    pytest.importorskip("mypy", reason="mypy is not installed: pip install --group lint")
    check(sys.executable, "-m", "mypy", "--strict", str(FILE))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_pyright_accepts_it() -> None:
    pyright = shutil.which("pyright", path=str(Path(sys.executable).parent)) or shutil.which("pyright")
    if pyright is None:
        pytest.skip("pyright is not installed: pip install --group lint")
    check(pyright, "--pythonpath", sys.executable, str(FILE))
