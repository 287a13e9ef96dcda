"""--module: a network of the user's own, as it is named on the command line."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from byol_edge.cli.module import make_module
from byol_edge.runtime import Encoder
from commands import call, fails
from torch import nn

NETS = """
import sys
import torch
from torch import nn

def make(checkpoint=None):
    print("building")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if checkpoint is not None:
        network.load_state_dict(torch.load(checkpoint, weights_only=True))
    return network

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1))

    def forward(self, images):
        print("forward")
        return super().forward(images)

class Outer:
    make = staticmethod(make)

short = lambda: make()
ready = make()
number = 3

def nothing():
    pass

def raises(checkpoint):
    raise ValueError("no\\nluck")

def leaves():
    sys.exit(3)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with modules of a user's own in it and a checkpoint."""
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "lacking.py").write_text("import nothing_of_that_name")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "deep.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("nets", "broken", "lacking", "inner", "inner.deep"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    torch.save(network.state_dict(), "mine.pt")
    yield tmp_path
    for name in ("nets", "inner", "inner.deep"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "name", ["nets:make", "nets:Net", "nets:short", "nets:ready", "nets:Outer.make", "inner.deep:make"]
)
def test_any_callable_is_called_and_a_module_is_taken(here: Path, name: str):
    assert isinstance(make_module(name, None), nn.Sequential)


def test_the_checkpoint_is_handed_on(here: Path):
    network = make_module("nets:make", "mine.pt")
    expected = torch.load("mine.pt", weights_only=True)
    assert all(torch.equal(network.state_dict()[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("code", "words", "reason"),
    [
        (2, ("nets",), "--module nets: has to be package.module:callable"),
        (2, ("nets.py:make",), "--module nets.py:make: has to be package.module:callable"),
        (2, ("./nets:make",), "has to be package.module:callable"),
        (2, ("lambda p: 3",), "has to be package.module:callable"),
        (2, ("gone:make",), "--module gone:make: no module gone in "),
        (2, ("inner.gone:make",), "no module inner.gone in "),
        (2, ("nets:gone",), "--module nets:gone: nets has no gone ("),
        (2, ("nets:number",), "number is a int, not a callable"),
        (2, ("nets:nothing",), "--module nets:nothing returned a NoneType, not a torch.nn.Module"),
        (2, ("nets:ready", "mine.pt"), "is a module already, which takes no checkpoint; leave out mine.pt"),
        (1, ("broken:make",), "importing broken (--module) raised SyntaxError: "),
        (1, ("lacking:make",), "importing lacking (--module) raised ModuleNotFoundError: "),
        (1, ("nets:raises", "mine.pt"), "--module nets:raises raised ValueError: no luck, called with 'mine.pt'"),
        (1, ("nets:raises",), "missing 1 required positional argument: 'checkpoint', called with nothing"),
        (1, ("nets:leaves",), "--module nets:leaves raised SystemExit: 3"),
        (1, ("nets:make", "gone.pt"), "raised FileNotFoundError"),
        (2, ("nets:make",), "does not say how large its images are; give --image-size PIXELS"),
    ],
)
def test_what_is_wrong_with_it_is_one_line(here: Path, code: int, words: tuple[str, ...], reason: str):
    name, *checkpoint = words
    assert reason in fails(code, "export", "--module", name, *checkpoint, "--out", "b")
    assert not Path("b").exists()


def test_from_export_to_validation(here: Path, photos: Path):
    command = ("export", "--module", "nets:make", "mine.pt", "--image-size", 32, "--mean", 0.5, "--std", 0.5)
    done = call(*command, "--calibration", photos, "--format", "onnx", "--out", "b", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["default"] == "fp32.onnx"  # what the user's code prints is not in it
    assert Encoder("b").self_test().passed
    assert "a module of its maker's own, torch.nn.modules.container:Sequential" in call("inspect", "b").stdout
    assert "give the same one again, as at export: --module " in fails(1 + 1, "validate", "b", "--data", photos)
    validated = call("validate", "b", "mine.pt", "--module", "nets:make", "--data", photos, "--layers")
    assert validated.exit_code == 0, validated.output
    assert "raw pixels" in validated.stdout
    assert "untrained  " not in validated.stdout
    assert "holds other weights than" in fails(1, "validate", "b", "--module", "nets:make", "--data", photos)
    for command in ("embed", "bench"):
        arguments = (photos, "-o", "v.npz") if command == "embed" else ("--seconds", 0.1)
        assert call(command, "b", *arguments).exit_code == 0
    assert "cannot be rebuilt from it" in fails(1, "train", photos, "--init", "b", "--out", "r")
    # The place is looked at before code of the user's runs.
    assert "exists already" in fails(2, "export", "--module", "gone:make", "--out", "b")


def test_what_its_code_prints_is_not_in_the_result(here: Path):
    done = call("export", "--module", "nets:Net", "--image-size", 32, "--format", "onnx", "--out", "b", "--json")
    assert json.loads(done.stdout)["default"] == "fp32.onnx"
    assert "forward" in done.stderr
    done = call("validate", "b", "--module", "nets:Net", "--data", "b/golden", "--json")
    assert json.loads(done.stdout)["images"] == 6


def test_what_does_not_go_together_is_refused(here: Path):
    assert "give a SOURCE, or --module" in fails(2, "export", "--out", "b")
    assert "a CHECKPOINT goes with --module" in fails(2, "validate", "b", "mine.pt", "--data", "x")
    both = ("--module", "nets:make", "--against", "mine.pt")
    assert "give one of them" in fails(2, "validate", "b", "--data", "x", *both)
    assert "--vectors compares two files" in fails(2, "validate", "--vectors", "a", "b", "--module", "nets:make")


def test_the_current_folder_is_importable_from_the_installed_command(
    here: Path, tmp_path_factory: pytest.TempPathFactory
):
    """Whose first place to import from is the folder of the script."""
    script = tmp_path_factory.mktemp("bin") / "byol-edge"
    script.write_text("from byol_edge.__main__ import main\nmain()\n")
    command = [sys.executable, script, "export", "--module", "nets:make", "--out", "b"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=here)
    assert result.returncode == 2
    assert result.stderr.splitlines()[0] == "building"
    assert "give --image-size PIXELS" in result.stderr
