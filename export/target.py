"""Which CPU the numbers of INT8 are chosen for."""

from __future__ import annotations

import platform
from pathlib import Path

VNNI, AVX2, ARM = "cpu-vnni", "cpu-avx2", "arm"
TARGETS = (VNNI, AVX2, ARM)

CPU_INFO = Path("/proc/cpuinfo")
# Instructions that add up products of 8 bits in 32; without them they are added up in 16, which overflow.
WIDE_SUMS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


def find_target(machine: str | None = None) -> str:
    """The target that this machine is, by what Linux says of it; without that, one with VNNI.

    `machine`: as platform.machine has it.
    """
    if (machine or platform.machine()).lower() in ("aarch64", "arm64"):
        return ARM
    try:
        lines = CPU_INFO.read_text(errors="replace").splitlines()
    except OSError:
        return VNNI
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return AVX2 if flags and not WIDE_SUMS & set(flags) else VNNI
