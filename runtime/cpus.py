"""How many CPUs this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def available_cpus() -> int:
    """The CPUs that the affinity mask and the control groups allow, at least 1 (`os.cpu_count()` ignores both).

    Containers set limits with a control group, and so does systemd (`CPUQuota=`).
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _find_groups() for quota in _read_quota(folder)]
    return max(1, min(cpus, *(math.ceil(quota) for quota in quotas)) if quotas else cpus)


def _find_groups() -> Iterator[Path]:
    """The folders of this process's control groups and of those above them: the tightest limit holds.

    A container may see its own group as the root, whatever it is called outside, so some of them may not exist.
    """
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:  # "0::/group" in version 2, "4:cpu,cpuacct:/group" in version 1
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CONTROL_GROUPS / "cpu" if controllers else CONTROL_GROUPS
        inside = Path(group.lstrip("/"))
        yield from (root / folder for folder in (inside, *inside.parents))


def _read_quota(folder: Path) -> Iterator[float]:
    """The number of CPUs that a control group allows, if it sets a limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if quota != "max" and int(quota) > 0:  # "max", and -1 in version 1: no limit
            yield int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return
