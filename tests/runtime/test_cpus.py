import os
from pathlib import Path

import pytest
from byol_edge.runtime import cpus
from byol_edge.runtime.cpus import available_cpus


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight CPUs, and a folder of control groups with none in it."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cpus, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(cpus, "OWN_GROUPS", tmp_path / "own")
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_the_affinity_mask_counts(machine: Path):
    assert available_cpus() == 8


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000\n", 8), ("150000 100000\n", 2), ("20000 100000\n", 1), ("1600000 100000", 8), ("junk", 8)],
)
def test_a_container_limits(machine: Path, quota: str, expected: int):
    write(machine / "own", "0::/\n")
    write(machine / "cpu.max", quota)
    assert available_cpus() == expected


def test_the_tightest_of_a_service_and_its_slice_holds(machine: Path):
    write(machine / "own", "0::/edge.slice/camera.service\n")
    write(machine / "edge.slice" / "camera.service" / "cpu.max", "400000 100000\n")
    assert available_cpus() == 4
    write(machine / "edge.slice" / "cpu.max", "300000 100000\n")
    assert available_cpus() == 3


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("250000", 3), ("0", 8)])
def test_version_1_of_control_groups_limits_too(machine: Path, quota: str, expected: int):
    write(machine / "own", "7:memory:/x\n4:cpu,cpuacct:/docker/1f3a\n1:name=systemd:/docker/1f3a\n0::/\n")
    write(machine / "cpu" / "cpu.cfs_quota_us", f"{quota}\n")  # a container sees its own group as the root
    write(machine / "cpu" / "cpu.cfs_period_us", "100000\n")
    assert available_cpus() == expected


def test_other_controllers_do_not(machine: Path):
    write(machine / "own", "4:cpuset:/\n")
    write(machine / "cpu" / "cpu.cfs_quota_us", "100000")
    write(machine / "cpu" / "cpu.cfs_period_us", "100000")
    assert available_cpus() == 8
