"""The machine that was measured on, in the words that a reader needs to judge the figures, and who is busy on it."""

from __future__ import annotations

import ctypes
import datetime
import os
import platform
import ssl
import time
from pathlib import Path

from benchmarks.network import congestion_control

IO_URING_SETUP = 425  # the system call, on every architecture that has it
QUIET = 0.15  # share of a CPU that may be in use when a measurement begins


def describe() -> dict[str, str]:
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "CPU": f"{os.cpu_count()} x {_cpu_model()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "OpenSSL": ssl.OPENSSL_VERSION,
        "io_uring": _io_uring(),
        "congestion control": congestion_control(),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _io_uring() -> str:
    """Tried, since a container may refuse what the kernel has."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(IO_URING_SETUP, 0, None)  # no entries: EINVAL or EFAULT where it is allowed
    error = ctypes.get_errno()
    refused = error in (1, 13, 38)  # EPERM, EACCES, ENOSYS
    return f"refused ({os.strerror(error)})" if refused else "allowed"


def busy() -> dict[int, tuple[float, float]]:
    """Of each CPU the seconds that it was in use, and all seconds, since the start."""
    tick = 1 / os.sysconf("SC_CLK_TCK")
    result = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *counts = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, idle, iowait, irq, softirq, stolen = (int(count) * tick for count in counts[:8])
            used = user + nice + system + irq + softirq + stolen
            result[int(name[3:])] = used, used + idle + iowait
    return result


def wait_until_quiet(cpus: tuple[int, ...], limit: float) -> None:
    """Until nobody else keeps these CPUs busy, or for so many seconds."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        before = busy()
        time.sleep(0.2)
        after = busy()
        shares = [(after[cpu][0] - before[cpu][0]) / max(0.01, after[cpu][1] - before[cpu][1]) for cpu in cpus]
        if max(shares) < QUIET:
            return
