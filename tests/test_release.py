"""What is released: its version, its files, and that the wheel passes a device's tests in an environment of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = ROOT / ".github" / "workflows"
FOLDERS = ("runtime", "models", "evaluate", "train", "export", "report", "decoding", "cli")
CLUTTER = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "runs", "bundles")


def test_the_version_is_stated_once():
    """In pyproject.toml; what else names a version of byol-edge names it as the first that reads a format."""
    assert version("byol-edge") == PROJECT["version"]
    (newest, *_) = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert newest == PROJECT["version"]
    files = [ROOT / "Dockerfile", ROOT / "setup.py", ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    files += [file for folder in ("api", *FOLDERS) for file in (ROOT / folder).glob("*.py")]
    stated = r"(?:byol[-_]edge|__version__)[^\w\n]{1,4}\d+\.\d+\.\d[^\n]*"
    found = [line for file in files for line in re.findall(stated, file.read_text(encoding="utf-8"))]
    assert [line.partition(">=")[0] for line in found] == ["byol-edge"]


def test_only_what_passed_its_tests_is_published_and_only_for_a_tag():
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load((WORKFLOWS / "release.yml").read_text(encoding="utf-8"))
    jobs = workflow["jobs"]
    assert workflow["permissions"] == {"contents": "read"}
    assert {name for name, job in jobs.items() if "permissions" in job} == {"publish"}
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["needs"] == "test"
    assert jobs["test"]["needs"] == "build"
    assert jobs["publish"]["if"] == "github.event_name == 'push'"
    assert workflow[True]["push"] == {"tags": ["v*"]}  # YAML takes `on` for true
    # Nothing but the files that were tested is at hand where the publishing is allowed.
    assert [step["uses"].partition("@")[0] for step in jobs["publish"]["steps"]] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that was built from it."""
    pytest.importorskip("build")
    clone, out = tmp_path_factory.mktemp("clone") / "byol-edge", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, clone, ignore=CLUTTER)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, clone)
    return out


def run(*command: object, folder: Path | None = None) -> str:
    environment = {"PATH": "/usr/bin:/bin"}
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


@pytest.mark.slow
def test_the_wheel_has_the_package_and_nothing_else(built: Path):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
    places = {"api": "byol_edge", **{folder: f"byol_edge/{folder}" for folder in FOLDERS}}
    files = [(place, file) for folder, place in places.items() for file in (ROOT / folder).iterdir() if file.is_file()]
    assert names == {f"{place}/{file.name}" for place, file in files if file.suffix != ".pyc"}


@pytest.mark.slow
def test_the_wheel_passes_the_tests_of_a_device(built: Path, finished_bundle: Path, tmp_path: Path):
    """The tests and the bundle are all that it is given beside what pip installs for it."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    install = [python, "-m", "pip", "install", "--disable-pip-version-check", wheel, "pytest"]
    done = subprocess.run([str(word) for word in install], capture_output=True, text=True)
    if "connection broken" in done.stderr:
        pytest.skip("needs a connection to PyPI, or to another index that pip knows")
    assert done.returncode == 0, done.stderr
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path)  # our own; a filter takes Python 3.11.4
    (folder,) = tmp_path.glob("byol_edge-*")
    printed = run(python, "-m", "pytest", f"--bundle={finished_bundle}", "-p", "no:cacheprovider", folder=folder)
    (passed,) = re.findall(r"(\d+) passed", printed)
    (skipped,) = re.findall(r"(\d+) skipped", printed)
    assert int(passed) > int(skipped)
