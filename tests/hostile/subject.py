"""Subject: victim.py in a process of its own, and what can be seen of it from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

VICTIM = Path(__file__).with_name("victim.py")


class Subject:
    """As a context manager: serves within, and has ended without an error afterwards."""

    port: int

    def __enter__(self) -> Subject:
        self._process = subprocess.Popen(
            [sys.executable, str(VICTIM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONSAFEPATH": "1"},
        )
        self.port = int(self._line())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._process:
            pass  # closes its input, which ends it, and waits
        assert self._process.returncode == 0

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self) -> int:
        """Bytes resident, once its garbage has been collected."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._line()
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("it has ended")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()
