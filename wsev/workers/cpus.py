"""How many workers: as many as asked for, or as many as this process may use CPUs.

That is by affinity, and by the quota of its control group, as containers have it: ``os.cpu_count()`` says what the
machine has, which in a container with half a CPU of sixty-four is far too much.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from wsev.errors import OptionError

__all__ = ["check_workers", "usable_cpus"]


def check_workers(workers: Any) -> int:
    """The number of workers that ``"auto"`` or a number stands for; OptionError for what is neither."""
    if workers == "auto":
        return usable_cpus() if hasattr(os, "fork") else 1
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise OptionError("workers", workers, "must be at least 1, or 'auto' for the CPUs that this process may use")
    if workers > 1 and not hasattr(os, "fork"):
        raise OptionError("workers", workers, "this system cannot fork a process; leave it out")
    return workers


def usable_cpus(root: Path = Path("/")) -> int:
    """The CPUs that this process may use, at least 1; a quota of one and a half counts as two.

    Args:
        root: below which proc and sys lie.
    """
    # macOS and Windows have no affinity.
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([count, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """The quota, in CPUs, of each control group that this process is in, and of those around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:  # cgroups(7): number:controllers:path, and version 2 has the number 0 and no controllers
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for group in _with_parents(mount, path):
                with suppress(OSError, ValueError):  # no such file, or "max": no limit there
                    quota, period = (group / "cpu.max").read_text().split()
                    yield int(quota) / int(period)
        elif "cpu" in controllers.split(","):
            for group in _with_parents(mount / controllers, path):
                with suppress(OSError):
                    quota = (group / "cpu.cfs_quota_us").read_text()
                    if int(quota) > 0:  # -1: no limit
                        yield int(quota) / int((group / "cpu.cfs_period_us").read_text())


def _with_parents(mount: Path, path: str) -> Iterator[Path]:
    """A group's directory and those around it; within a container some are not there, and the mount is its own."""
    group = mount / path.lstrip("/")
    yield group
    yield from (parent for parent in group.parents if parent.is_relative_to(mount))
