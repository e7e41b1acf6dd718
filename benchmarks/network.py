"""The loopback that is measured on: one of this run's own, with a congestion control that does not pace.

A system that defaults to BBR paces its loopback, too, which halves the figures of large messages.  A network namespace
changes that for this process and its children only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SETTING = Path("/proc/sys/net/ipv4/tcp_congestion_control")
UNPACED = "reno"
INSIDE = "WSEV_BENCH_NETWORK"  # set in the namespace

PREPARE = f"ip link set lo up && echo {UNPACED} > {SETTING}"


def congestion_control() -> str:
    return SETTING.read_text().strip() if SETTING.exists() else "unknown"


def enter() -> None:
    """Start this program anew in a network namespace; return if it is in one, needs none, or may not have one."""
    if os.environ.get(INSIDE) or congestion_control() == UNPACED:
        return
    unshare = ["unshare", "--net", *(() if os.geteuid() == 0 else ("--map-root-user",)), "sh", "-c"]
    try:
        possible = subprocess.run([*unshare, PREPARE], capture_output=True).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        print(f"no network namespace may be made: TCP's congestion control is the system's, {congestion_control()}")
        return
    os.environ[INSIDE] = "1"
    script = f'{PREPARE} && exec "$0" "$@"'
    os.execvp(unshare[0], [*unshare, script, sys.executable, "-m", "benchmarks", *sys.argv[1:]])
