"""A function of a test module in a process of its own: for what would harm the suite's, such as want of memory.

It owns that process and its limit of memory.  The suite's own is never limited: whoever comes first there would fail.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

MIB = 1 << 20

needs_scarcity = pytest.mark.skipif(
    sys.platform != "linux" or os.environ.get("WSEV_SANITIZE") == "1",
    reason="needs Linux, whose RLIMIT_AS makes malloc fail, and no AddressSanitizer, which then ends the process",
)


def run_apart(claim: Callable[..., None], *arguments: str) -> None:
    """Call ``claim``, a function of a test module, in another process; what it asserts is asserted here."""
    call = f"from {claim.__module__} import {claim.__name__} as claim; claim(*{arguments!r})"
    done = subprocess.run(
        [sys.executable, "-c", call],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def at_most(more: int) -> Iterator[None]:
    """Within it this process gets ``more`` bytes of address space, and then MemoryError."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
