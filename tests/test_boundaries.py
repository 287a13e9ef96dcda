"""What may import what, what a device install needs, and that nothing calls home."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "runtime": set(),
    "models": {"runtime"},
    "evaluate": {"models", "runtime"},
    "train": {"evaluate", "models", "runtime"},
    "export": {"evaluate", "models", "runtime"},
    "report": {"train", "evaluate", "models", "runtime"},
    "decoding": {"evaluate", "models", "runtime"},
    "cli": {"decoding", "report", "train", "export", "evaluate", "models", "runtime"},
}
LIBRARY = [folder for folder in MAY_IMPORT if folder != "cli"]
NOT_ON_A_DEVICE = {"torch", "torchvision", "timm", "safetensors", "onnx", "nncf", "sklearn", "matplotlib"}


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> list[tuple[str, int]]:
    """Every imported module with its relative level, wherever in the file it stands."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "", node.level))
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_one_way(folder: str):
    for file in (ROOT / folder).glob("*.py"):
        for module, level in imports(parse(file)):
            assert not module.startswith("byol_edge"), f"{file.name}: across folders, imports are relative"
            if level == 2:
                assert module.split(".")[0] in MAY_IMPORT[folder], f"{folder}/{file.name} imports {module}"
            assert level <= 2


def test_the_face_imports_by_name_and_when_asked():
    (checked,) = [node for node in parse(ROOT / "api" / "__init__.py").body if isinstance(node, ast.If)]
    at_once = [
        module
        for node in parse(ROOT / "api" / "__init__.py").body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for module, _ in imports(node)
    ]
    assert set(at_once) <= {"__future__", "importlib", "os", "typing"}
    assert ast.unparse(checked.test) == "TYPE_CHECKING"
    assert {(module.split(".")[0], level) for module, level in imports(checked)} <= {(name, 1) for name in LIBRARY}
    # Of the command, nothing but its entry.
    assert [module for module, level in imports(parse(ROOT / "api" / "__main__.py")) if level] == ["cli.main"]


def test_the_runtime_names_nothing_that_a_device_lacks():
    for file in (ROOT / "runtime").glob("*.py"):
        if file.name == "embedder.py":  # for those who have scikit-learn; nothing here imports it
            continue
        tops = {module.split(".")[0] for module, level in imports(parse(file)) if level == 0}
        assert not tops & NOT_ON_A_DEVICE, file.name


def library_files() -> list[Path]:
    return [file for folder in LIBRARY for file in (ROOT / folder).glob("*.py")]


def strings(tree: ast.AST) -> Iterator[str]:
    """Every string with `{}` for what is filled in; of docstrings and other bare strings, none."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            for part in node.values:
                yield from strings(part)
        else:
            yield from strings(node)


def test_library_messages_name_arguments_and_no_flags():
    """Which flag an argument is, the command says; a whole command to type is no flag."""
    flags = [
        f"{file.relative_to(ROOT)}: {text}"
        for file in library_files()
        for text in strings(parse(file))
        if re.search(r"(?<![\w-])--[a-z]", re.sub(r"`byol-edge [^`]*`", "", text))
    ]
    assert not flags, "\n".join(flags)


def test_the_library_reports_by_logging_alone():
    callables = [
        f"{file.relative_to(ROOT)}:{each.lineno}: {each.arg}"
        for file in library_files()
        for each in ast.walk(parse(file))
        if isinstance(each, ast.arg) and each.arg in ("note", "watch", "watcher")
    ]
    assert not callables, "\n".join(callables)


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


@pytest.mark.parametrize("module", ["runtime", "runtime.run", "evaluate.scorer", "evaluate.comparison"])
def test_what_a_device_has_starts_without_pytorch(module: str):
    run_python(f"import byol_edge.{module}, sys; assert 'torch' not in sys.modules")


def test_help_starts_without_pytorch():
    run_python("import byol_edge.cli.main, sys; assert not {'torch', 'onnx', 'openvino'} & set(sys.modules)")


def test_the_device_commands_need_the_device_install_alone(finished_bundle: Path, photos: Path, tmp_path: Path):
    out = tmp_path / "v.npz"
    shutil.copy(photos / "disc" / "00.png", tmp_path / "mine.png")
    assert "120 vectors" in run_python(ON_A_DEVICE, "embed", str(finished_bundle), str(photos), "-o", str(out))
    drawn = ("--encoder", str(finished_bundle), "--sheet", str(tmp_path / "sheet.png"))
    assert "disc" in run_python(ON_A_DEVICE, "nearest", str(out), str(tmp_path / "mine.png"), *drawn)
    assert "passed" in run_python(ON_A_DEVICE, "self-test", str(finished_bundle))
    assert "conv4" in run_python(ON_A_DEVICE, "inspect", str(finished_bundle))
    assert "in both files" in run_python(ON_A_DEVICE, "validate", "--vectors", str(out), str(out))
    assert "onnxruntime" in run_python(ON_A_DEVICE, "bench", str(finished_bundle), "--seconds", "0.1")
    assert "Commands" in run_python(ON_A_DEVICE, "--help")


def test_onnx_runtime_leaves_nothing_at_home(finished_bundle: Path, tmp_path: Path):
    """Its telemetry would leave an identifier there, except where CI is set."""
    run_python(ON_A_DEVICE, "self-test", str(finished_bundle), HOME=str(tmp_path), XDG_CACHE_HOME="", CI="")
    assert list(tmp_path.iterdir()) == []


def test_a_device_can_inspect_a_run(finished_run: Path):
    assert "conv4" in run_python(ON_A_DEVICE, "inspect", str(finished_run))


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "x", "--out", "y"], "train"),
        (["export", "x", "--out", "y"], "export"),
        (["validate", "x", "--data", "y"], "export"),
        (["compare", "raw", "x", "--data", "y"], "export"),
        (["embed", "imagenet", "x", "-o", "y.npz"], "export"),
        (["demo"], "all"),
    ],
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
    assert [path for path in home.rglob("*") if re.search("intel|microsoft|telemetry", str(path).lower())] == []
