"""How many CPUs this process may use."""

import math
import os
from pathlib import Path


def available_cpus() -> int:
    """CPUs by affinity mask and container limit, at least 1 (`os.cpu_count()` ignores both)."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cpus
    return cpus if quota == "max" else max(1, min(cpus, math.ceil(int(quota) / int(period))))
