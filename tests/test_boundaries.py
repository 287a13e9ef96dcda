"""What may import what, what a device install needs, and that nothing calls home."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "runtime": set(),
    "models": {"runtime"},
    "train": {"models", "runtime"},
    "export": {"models", "runtime"},
    "cli": {"train", "export", "models", "runtime"},
}
NOT_ON_A_DEVICE = {"torch", "torchvision", "timm", "safetensors", "onnx", "nncf", "sklearn", "matplotlib"}


def imports(file: Path) -> list[tuple[str, int]]:
    """Every imported module with its relative level, wherever in the file it stands."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "", node.level))
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_one_way(folder: str):
    for file in (ROOT / folder).glob("*.py"):
        for module, level in imports(file):
            assert not module.startswith("byol_edge"), f"{file.name}: across folders, imports are relative"
            if level == 2:
                assert module.split(".")[0] in MAY_IMPORT[folder], f"{folder}/{file.name} imports {module}"
            assert level <= 2


def test_the_runtime_names_nothing_that_a_device_lacks():
    for file in (ROOT / "runtime").glob("*.py"):
        if file.name == "embedder.py":  # for those who have scikit-learn; nothing here imports it
            continue
        tops = {module.split(".")[0] for module, level in imports(file) if level == 0}
        assert not tops & NOT_ON_A_DEVICE, file.name


def run_python(code: str, *arguments: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


# Importing any of these fails, as on a device install; the command is then run as its entry point does.
ON_A_DEVICE = """
import sys
for name in ("torch", "torchvision", "timm", "safetensors", "onnx", "onnxscript", "openvino", "nncf", "sklearn",
             "matplotlib"):
    sys.modules[name] = None
from byol_edge.cli.main import cli
sys.exit(cli(standalone_mode=True))
"""


def test_the_runtime_starts_without_pytorch():
    run_python("import byol_edge.runtime, sys; assert 'torch' not in sys.modules")


def test_help_starts_without_pytorch():
    run_python("import byol_edge.cli.main, sys; assert not {'torch', 'onnx', 'openvino'} & set(sys.modules)")


def test_the_device_commands_need_the_device_install_alone(finished_bundle: Path, photos: Path, tmp_path: Path):
    out = tmp_path / "v.npz"
    assert "120 vectors" in run_python(ON_A_DEVICE, "embed", str(finished_bundle), str(photos), "-o", str(out))
    assert "passed" in run_python(ON_A_DEVICE, "self-test", str(finished_bundle))
    assert "conv4" in run_python(ON_A_DEVICE, "inspect", str(finished_bundle))
    assert "onnxruntime" in run_python(ON_A_DEVICE, "bench", str(finished_bundle), "--seconds", "0.1")
    assert "Commands" in run_python(ON_A_DEVICE, "--help")


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [(["train", "x", "--out", "y"], "train"), (["export", "x", "--out", "y"], "export"), (["demo"], "all")],
)
def test_a_missing_extra_is_named(arguments: list[str], extra: str, tmp_path: Path):
    result = subprocess.run(
        [sys.executable, "-c", ON_A_DEVICE, *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 1
    assert f"pip install 'byol-edge[{extra}]'" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


NO_NETWORK = """
import socket, sys
def refuse(*arguments, **_):
    print("NETWORK", arguments, flush=True)
    raise OSError("no network in this test")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from pathlib import Path
from byol_edge.export.bundling import export_bundle
from byol_edge.export.config import ExportConfig
export_bundle(Path(sys.argv[1]), Path(sys.argv[2]), ExportConfig(int8=True))
"""


def test_an_export_calls_nobody_and_leaves_nothing_at_home(finished_run: Path, tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    printed = run_python(NO_NETWORK, str(finished_run), str(tmp_path / "bundle"), HOME=str(home), CI="")
    assert "NETWORK" not in printed
    assert (tmp_path / "bundle" / "int8.xml").exists()
    telemetry = [path for path in home.rglob("*") if "intel" in str(path).lower() or "telemetry" in str(path).lower()]
    assert telemetry == []
