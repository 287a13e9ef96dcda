"""`import byol_edge`: what it offers, and that it loads nothing before it is asked for."""

import ast
import importlib
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import byol_edge
import pytest

HEAVY = "{'torch', 'onnxruntime', 'numpy', 'PIL', 'click', 'byol_edge.runtime'}"


def run_python(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert result.returncode == code, result.stderr
    return result


def test_importing_it_loads_nothing_else():
    run_python("-c", f"import byol_edge, sys; assert not {HEAVY} & set(sys.modules)")


def test_asking_what_it_offers_loads_nothing_either():
    run_python(
        "-c", f"import byol_edge, sys; dir(byol_edge); byol_edge.__version__; assert not {HEAVY} & set(sys.modules)"
    )


def test_an_encoder_needs_no_pytorch():
    run_python("-c", "from byol_edge import Encoder, ByolEdgeError; import sys; assert 'torch' not in sys.modules")


@pytest.mark.parametrize("name", byol_edge.__all__)
def test_every_name_leads_to_what_is_called_so(name: str):
    value = getattr(byol_edge, name)
    if name != "__version__":
        assert value.__name__ == name
        assert value.__doc__
        assert getattr(byol_edge, name) is value


def test_all_names_are_offered_and_no_others():
    assert dir(byol_edge) == sorted(byol_edge.__all__)
    assert byol_edge.__version__ == version("byol-edge")
    with pytest.raises(AttributeError, match="module 'byol_edge' has no attribute 'pretrained'"):
        byol_edge.pretrained  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Bundle'"):
        from byol_edge import Bundle  # noqa: F401 # type: ignore[attr-defined]


def test_an_editor_is_told_the_same_names():
    """What stands under TYPE_CHECKING is where each name is found."""
    tree = ast.parse(Path(byol_edge.__file__).read_text(encoding="utf-8"))
    told = {
        (name.name, f"byol_edge.{node.module}")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for name in node.names
    }
    found = {(name, getattr(byol_edge, name).__module__) for name in byol_edge.__all__ if name != "__version__"}
    assert told == found


def test_no_name_hides_a_sub_package():
    folders = {path.parent.name for path in Path(__file__).parents[2].glob("*/__init__.py")} - {"api"}
    assert folders == {"runtime", "models", "evaluate", "train", "export", "report", "decoding", "cli"}
    assert not folders & set(byol_edge.__all__)
    for folder in folders:
        module = importlib.import_module(f"byol_edge.{folder}")
        assert getattr(byol_edge, folder) is module


def test_the_functions_take_the_dataclasses_that_are_offered_beside_them():
    for name, config in (("pretrain", "TrainConfig"), ("export_bundle", "ExportConfig"), ("validate", "Limits")):
        function = getattr(byol_edge, name)
        assert any(config in str(each) for each in function.__annotations__.values()), name
        assert config in byol_edge.__all__


def test_python_m_is_the_command():
    assert run_python("-m", "byol_edge", "--version").stdout.split()[-1] == byol_edge.__version__
    assert "validate" in run_python("-m", "byol_edge", "--help").stdout
    assert "Did you mean" in run_python("-m", "byol_edge", "validat", code=2).stderr


def test_windows_is_told_in_one_line():
    code = "import sys; from byol_edge.__main__ import main; sys.platform = 'win32'; main()"
    result = run_python("-c", code, "--help", code=1)
    assert result.stderr == "byol-edge: needs Linux or macOS\n"
    assert result.stdout == ""
