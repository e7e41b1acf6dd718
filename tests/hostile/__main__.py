"""Every attack, one after the other, and what it did: `make hostile`, or `python -m tests.hostile [NAME ...]`.

The server, the attacker and a hundred bystanders who echo all the time are three processes.  Per attack: its fate, the
server's memory and descriptors before and after, and the bystanders' 99th percentile alone and meanwhile.  Judged are
fate, memory (5 % or 1 MB more), descriptors, and that every bystander was served; the latency is shown beside them,
since it is the machine's as much as the server's: on two cores the attacker takes one.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.hostile.attacks import ATTACKS, Attack
from tests.hostile.subject import Subject

BYSTANDERS = Path(__file__).with_name("bystanders.py")
ALONE = 1.0  # seconds that the bystanders are measured alone
MEANWHILE = 1.0  # seconds that an attack is made for at least, again and again
SETTLED = 6.0  # seconds within which memory and descriptors must be what they were
MIB = 1 << 20

HEAD = f"{'':2} {'':>2} {'attack':52} {'fate':12} {'MB':>15} {'descriptors':>12} {'p99 alone, then':>18}"


class Bystanders:
    def __init__(self, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(BYSTANDERS), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONSAFEPATH": "1"},
        )
        self._line()

    def latency(self) -> float:
        """Seconds, since it was asked for last."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._line())

    @property
    def pid(self) -> int:
        return self._process.pid

    def leave(self) -> None:
        with self._process:
            pass

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a bystander was cut off")
        return line


def share_out(server: int, bystanders: int) -> None:
    """A core for the server, another for its peers; the attacker, who is not to slow bystanders itself, behind them."""
    os.nice(19)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(server, {cores[0]})
        os.sched_setaffinity(bystanders, {cores[1]})
        os.sched_setaffinity(0, {cores[1]})


def is_as_before(memory: int, descriptors: int, subject: Subject) -> tuple[int, int, bool]:
    """What it is at last; it may take the time that timeouts and the pools' giving back take."""
    allowed = memory + max(MIB, memory // 20)
    end = time.monotonic() + SETTLED
    while True:
        now = subject.memory(), subject.descriptors()
        if (now[0] <= allowed and now[1] <= descriptors) or time.monotonic() > end:
            return *now, now[0] <= allowed and now[1] <= descriptors
        time.sleep(0.2)


def make(attack: Attack, subject: Subject, bystanders: Bystanders) -> bool:
    bystanders.latency()
    time.sleep(ALONE)
    alone = bystanders.latency()
    memory, descriptors = subject.memory(), subject.descriptors()
    try:
        end = time.monotonic() + MEANWHILE
        fate = asyncio.run(attack.run(subject.port))
        while fate == attack.fate and time.monotonic() < end:
            fate = asyncio.run(attack.run(subject.port))
    except Exception as error:
        fate = repr(error)
    meanwhile = bystanders.latency()
    memory_after, descriptors_after, is_settled = is_as_before(memory, descriptors, subject)
    is_good = fate == attack.fate and is_settled
    print(
        f"{'ok' if is_good else '!!'} {attack.group:>2} {attack.name:52} {fate:12} "
        f"{memory / MIB:6.1f} > {memory_after / MIB:6.1f} {descriptors:5} > {descriptors_after:4} "
        f"{alone * 1000:7.1f} > {meanwhile * 1000:5.1f} ms",
        flush=True,
    )
    return is_good


def main(names: Sequence[str]) -> int:
    chosen = [each for each in ATTACKS if not names or any(name in each.name for name in names)]
    good = 0
    print(HEAD, flush=True)
    with Subject() as subject:
        bystanders = Bystanders(subject.port)
        share_out(subject.pid, bystanders.pid)
        for each in chosen:  # once before it counts: what a server makes on first use is not what an attack left
            asyncio.run(each.run(subject.port))
        for each in chosen:
            good += make(each, subject, bystanders)
        bystanders.leave()
    print(f"{good} of {len(chosen)} attacks ended as they should, and left nothing behind")
    return 0 if good == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
