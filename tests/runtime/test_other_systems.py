"""The runtime on a system that lacks what Linux has: file locks, folders that change places, CPU affinity, /proc,
hooks of a fork.

Nothing else that the runtime uses is missing on macOS.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import load_vectors

BARE = """
import ctypes, os, pathlib, sys
sys.modules["fcntl"] = None  # importing it fails
for name in ("sched_getaffinity", "fork", "register_at_fork"):
    delattr(os, name)
load, read = ctypes.CDLL, pathlib.Path.read_text

class WithoutRenameat2:
    def __init__(self, name, *arguments, **options):
        self.library = load(name, *arguments, **options)

    def __getattr__(self, name):
        if name == "renameat2":
            raise AttributeError(name)
        return getattr(self.library, name)

def read_elsewhere(path, *arguments, **options):
    if str(path).startswith(("/proc", "/sys")):
        raise FileNotFoundError(path)
    return read(path, *arguments, **options)

ctypes.CDLL, pathlib.Path.read_text = WithoutRenameat2, read_elsewhere
"""
COMMAND = "from byol_edge.__main__ import main; main()"
# Ends in the middle, as by a kill, with two shards on the disk.
STOPPED = """
from byol_edge.runtime import embedding
save, embedding.SHARD_IMAGES = embedding.save_shard, 32

def save_twice(folder, number, shard):
    if number == 2:
        os._exit(9)
    save(folder, number, shard)

embedding.save_shard = save_twice
"""
FOLDERS = """
from byol_edge.runtime.files import FolderKind, whole_folder
out, kind = pathlib.Path(sys.argv[1]), FolderKind("thing", "marker", ("marker",))
for content in ("first", "second"):
    with whole_folder(out, True, kind) as part:
        (part / "marker").write_text(content)
assert [each.name for each in out.parent.iterdir()] == ["out"]
print((out / "marker").read_text())
"""
CPUS = "from byol_edge.runtime.cpus import available_cpus; print(available_cpus() == os.cpu_count())"


def run_bare(code: str, *arguments: object, exit_code: int = 0) -> str:
    command = [sys.executable, "-c", BARE + code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == exit_code, result.stderr
    return result.stdout


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_images_are_embedded_and_an_end_in_the_middle_costs_nothing(
    engine: str, finished_bundle: Path, photos: Path, tmp_path: Path
):
    if find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")

    def arguments(out: Path) -> tuple[object, ...]:
        return "embed", finished_bundle, photos, "-o", out, "--backend", engine, "--batch-size", 16

    whole, stopped = tmp_path / "whole.npz", tmp_path / "stopped.npz"
    assert "passed" in run_bare(COMMAND, "self-test", finished_bundle, "--backend", engine)
    assert "120 vectors" in run_bare(COMMAND, *arguments(whole))
    run_bare(STOPPED + COMMAND, *arguments(stopped), exit_code=9)
    assert len(list((tmp_path / "stopped.npz.parts").glob("0*.npz"))) == 2
    assert "120 vectors" in run_bare(COMMAND, *arguments(stopped), "--resume")
    assert np.array_equal(load_vectors(whole).vectors, load_vectors(stopped).vectors)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["stopped.npz", "whole.npz"]


def test_a_folder_is_replaced_whole(tmp_path: Path):
    assert run_bare(FOLDERS, tmp_path / "out") == "second\n"


def test_every_cpu_counts():
    assert run_bare(CPUS) == "True\n"
