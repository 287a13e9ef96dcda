"""What a run was made with."""

import platform
from importlib.metadata import version

PACKAGES = ("byol-edge", "torch", "timm", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Versions by package, and Python's."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
