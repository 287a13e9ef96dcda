"""The machine and the versions that a report's figures are from."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..runtime.cpus import available_cpus

CPU_INFO = Path("/proc/cpuinfo")
PACKAGES = ("byol-edge", "onnxruntime", "openvino", "torch", "numpy", "pillow")


def describe_machine() -> dict[str, str]:
    """The CPU, how many of it this process may use, the system, and versions by package."""
    return {
        "CPU": _read_model() or platform.machine(),
        "CPUs used": str(available_cpus()),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _find_version(name))},
    }


def _read_model() -> str:
    """What Linux calls the CPU; empty where it does not say."""
    try:
        lines = CPU_INFO.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _find_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
