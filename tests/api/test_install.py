"""The package as pip installs it, plainly and editable, asked from inside the clone and from elsewhere."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "runs", "bundles", "byol-edge-demo")
# What a person does first, and that no folder of the clone is taken for a part of the package, or the other way round.
FIRST_STEPS = """
import byol_edge, sys
from byol_edge import Encoder, ExportConfig, TrainConfig, __version__, pretrain
assert sys.argv[1] in byol_edge.__file__, byol_edge.__file__
import byol_edge.train, byol_edge.evaluate.validate
print(__version__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("editable", [False, True])
def test_it_is_found_wherever_one_stands(editable: bool, tmp_path: Path):
    clone, elsewhere = tmp_path / "clone", tmp_path / "elsewhere"
    shutil.copytree(ROOT, clone, ignore=LEFT_OUT)
    elsewhere.mkdir()
    python = make_environment(tmp_path / "venv")
    install = ["install", "-q", "--no-deps", "--no-build-isolation", *(["-e"] if editable else []), str(clone)]
    run([sys.executable, "-m", "pip", "--python", str(python), *install], elsewhere)
    place = str(clone / "api") if editable else str(tmp_path / "venv")
    for folder in (clone, elsewhere):
        printed = run([str(python), "-c", FIRST_STEPS, place], folder).split()
        for command in ([str(python), "-m", "byol_edge"], [str(python.with_name("byol-edge"))]):
            assert run([*command, "--version"], folder).split()[-1:] == printed


def make_environment(folder: Path) -> Path:
    """An environment that finds the libraries of this one, but not how byol-edge is installed in it."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    (Path(run([str(python), "-c", script], folder).strip()) / "libraries.pth").write_text(
        sysconfig.get_path("purelib") + "\n"
    )
    return python


def run(command: list[str], folder: Path) -> str:
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, env={"PATH": "/usr/bin:/bin"})
    assert result.returncode == 0, result.stderr
    return result.stdout
