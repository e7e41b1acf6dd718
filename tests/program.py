"""A program under test in a process of its own: one of examples/, started as a newcomer starts it.

It owns the process: `start` returns when the program says that it serves, and `stop` asks it to end as Ctrl-C does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


class Program:
    """One of the examples, on a port that stays the same when it is started again.

    Args:
        name: its file in examples/, or the whole path of another one.
        ready: what it writes when it serves.
    """

    def __init__(self, name: str, *arguments: str, ready: str = "started on") -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._command = [sys.executable, str(EXAMPLES / name), "--port", str(self.port), *arguments]
        self._ready = ready.encode()

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, process_group=0
        )
        assert self._process.stdout is not None
        said = b""
        while self._ready not in said:
            line = await self._process.stdout.readline()
            assert line, f"it ended: {said.decode()}"
            said += line

    def freeze(self) -> None:
        """Let it do nothing more, while its kernel still takes connections and bytes: as if the network had died."""
        os.killpg(self._process.pid, signal.SIGSTOP)  # its workers too

    def thaw(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    async def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        said, _ = await self._process.communicate()
        assert self._process.returncode == 0, said.decode()
        assert b"Traceback" not in said, said.decode()
