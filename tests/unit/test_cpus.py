"""How many CPUs this process may use: the smallest of its affinity and the quotas of its control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wsev.workers.cpus import usable_cpus


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root directory with no control groups, on a machine with eight CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    return tmp_path


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_it_is_the_affinity_where_nothing_else_limits(system: Path) -> None:
    assert usable_cpus(system) == 8


def test_there_is_one_at_least_on_this_machine_too() -> None:
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("limit", "count"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("9999999 100000", 8)],
)
def test_a_quota_of_version_2_is_rounded_up(system: Path, limit: str, count: int) -> None:
    put(system, "proc/self/cgroup", "0::/app.slice/chat.service\n")
    put(system, "sys/fs/cgroup/app.slice/chat.service/cpu.max", f"{limit}\n")
    assert usable_cpus(system) == count


def test_a_quota_of_a_group_around_it_counts(system: Path) -> None:
    put(system, "proc/self/cgroup", "0::/app.slice/chat.service\n")
    put(system, "sys/fs/cgroup/app.slice/chat.service/cpu.max", "max 100000\n")
    put(system, "sys/fs/cgroup/app.slice/cpu.max", "300000 100000\n")
    assert usable_cpus(system) == 3


def test_in_a_container_the_mount_is_the_group(system: Path) -> None:
    put(system, "proc/self/cgroup", "0::/../../docker/1234\n")
    put(system, "sys/fs/cgroup/cpu.max", "100000 100000\n")
    assert usable_cpus(system) == 1


@pytest.mark.parametrize(("quota", "count"), [("-1", 8), ("250000", 3)])
def test_a_quota_of_version_1(system: Path, quota: str, count: int) -> None:
    put(system, "proc/self/cgroup", "4:memory:/app\n2:cpu,cpuacct:/app\n1:name=systemd:/\n0::/\n")
    put(system, "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", f"{quota}\n")
    put(system, "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us", "100000\n")
    assert usable_cpus(system) == count
