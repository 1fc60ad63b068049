"""How many cores: affinity, quotas of containers (with files as Linux has them), and ``CPU_LIMIT``."""

import os

import pytest

import dlcore as dl
from dlcore import machine


@pytest.fixture
def host(monkeypatch, tmp_path):
    """A host with eight cores and no control groups; ``host(path, text)`` writes a file of the system."""
    monkeypatch.delenv("CPU_LIMIT", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")

    def write(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return write


def test_without_limits(host):
    assert dl.cores() == 8


def test_affinity_and_its_absence(host, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert dl.cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert dl.cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert dl.cores() == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2", 2), ("2.0", 2), ("1.5", 2), ("0.25", 1), ("64", 8), ("0", 8), ("", 8), ("max", 8),
     ("-1", 8), ("nan", 8), ("inf", 8)],
)  # fmt: skip
def test_the_environment_variable(host, monkeypatch, text, expected):
    monkeypatch.setenv("CPU_LIMIT", text)
    assert dl.cores() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("200000 100000\n", 2), ("150000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", 8),
     ("max\n", 8), ("", 8), ("rubbish\n", 8), ("9900000 100000\n", 8)],
)  # fmt: skip
def test_quota_of_version_2(host, text, expected):
    """Inside a container its own group is the outermost one that it sees."""
    host("own", "0::/\n")
    host("cgroup/cpu.max", text)
    assert dl.cores() == expected


def test_the_groups_around_count(host):
    host("own", "0::/user.slice/job.scope\n")
    host("cgroup/user.slice/job.scope/cpu.max", "max 100000\n")
    host("cgroup/user.slice/cpu.max", "300000 100000\n")
    assert dl.cores() == 3
    host("cgroup/user.slice/job.scope/cpu.max", "200000 100000\n")
    assert dl.cores() == 2


def test_a_name_of_the_host_is_not_to_be_found_inside(host):
    host("own", "0::/docker/3f2a\n")
    host("cgroup/cpu.max", "400000 100000\n")
    assert dl.cores() == 4


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("250000", 3), ("100000", 1)])
def test_quota_of_version_1(host, mount, quota, expected):
    host("own", f"5:memory:/a\n3:cpuset:/\n2:{mount}:/a/b\n1:name=systemd:/\n0::/\n")
    host(f"cgroup/{mount}/a/b/cpu.cfs_quota_us", quota + "\n")
    host(f"cgroup/{mount}/a/b/cpu.cfs_period_us", "100000\n")
    assert dl.cores() == expected


def test_both_versions_side_by_side(host):
    host("own", "1:cpu,cpuacct:/\n0::/\n")
    host("cgroup/cpu,cpuacct/cpu.cfs_quota_us", "600000\n")
    host("cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    host("cgroup/unified/cpu.max", "500000 100000\n")
    assert dl.cores() == 5


def test_the_least_counts(host, monkeypatch):
    host("own", "0::/\n")
    host("cgroup/cpu.max", "300000 100000\n")
    monkeypatch.setenv("CPU_LIMIT", "2")
    assert dl.cores() == 2
    monkeypatch.setenv("CPU_LIMIT", "5")
    assert dl.cores() == 3


def test_browsers_have_one(host, monkeypatch):
    monkeypatch.setattr(machine.sys, "platform", "emscripten")
    assert dl.cores() == 1
