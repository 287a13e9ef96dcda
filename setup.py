"""Maps each top-level folder to its sub-package of `byol_edge`, and api/ to the package itself.

Everything else stands in pyproject.toml.
"""

from setuptools import setup

FOLDERS = ["runtime", "models", "evaluate", "train", "export", "report", "decoding", "cli"]
PACKAGES = {"byol_edge": "api", **{f"byol_edge.{folder}": folder for folder in FOLDERS}}

setup(
    packages=list(PACKAGES),
    package_dir=PACKAGES,
    package_data={package: ["py.typed", "page.*", "schema.json"] for package in PACKAGES},
)
