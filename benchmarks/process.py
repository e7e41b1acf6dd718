"""A server in processes of its own, pinned to one CPU: started, looked at, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from benchmarks.candidates import BUILD, Candidate, environment
from benchmarks.scenarios import Scenario

START_LIMIT = 20.0  # seconds
STOP_LIMIT = 3.0
SETTLE = 0.2  # after it accepts, for what it still does then


class ServerError(Exception):
    """It did not start; what it wrote last."""


class ServerProcess:
    """As a context manager: serves within, is gone afterwards."""

    def __init__(self, candidate: Candidate, scenario: Scenario, cpu: int) -> None:
        self.port = _free_port()
        self._command = ["taskset", "--cpu-list", str(cpu), *candidate.command_for(scenario, self.port)]
        self._environment = candidate.environment or environment()
        self._log = BUILD / "logs" / f"{candidate.name}.log"

    def __enter__(self) -> ServerProcess:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(self._environment), cwd=BUILD
            )
        try:
            self._wait_until_it_accepts()
        except ServerError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        pids = self.pids()
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid in pids[1:]:
            if os.path.exists(f"/proc/{pid}"):
                os.kill(pid, signal.SIGKILL)

    def pids(self) -> list[int]:
        """The process and its descendants."""
        found = [self._process.pid]
        for pid in found:
            children = Path(f"/proc/{pid}/task/{pid}/children")
            if children.exists():
                found += [int(child) for child in children.read_text().split()]
        return found

    def private_memory(self) -> int:
        """Bytes of memory that no other process shares; what the kernel holds for the sockets is not among them."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Private_Clean:", "Private_Dirty:")):
                    total += int(line.split()[1]) * 1024
        return total

    def _wait_until_it_accepts(self) -> None:
        end = time.monotonic() + START_LIMIT
        while time.monotonic() < end and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                time.sleep(SETTLE)
                return
        words = self._log.read_text().strip().splitlines()
        raise ServerError(words[-1] if words else "it does not accept and says nothing")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
