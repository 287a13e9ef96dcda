"""Maps each top-level folder to its sub-package of `byol_edge`; everything else stands in pyproject.toml."""

from setuptools import setup

FOLDERS = ["runtime", "models", "evaluate", "train", "export", "cli"]

setup(
    packages=[f"byol_edge.{folder}" for folder in FOLDERS],
    package_dir={f"byol_edge.{folder}": folder for folder in FOLDERS},
    package_data={f"byol_edge.{folder}": ["py.typed"] for folder in FOLDERS},
)
