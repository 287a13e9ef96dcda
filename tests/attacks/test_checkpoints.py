"""Files that are no checkpoint of a backbone, or a damaged one: refused for the right reason, in one line, unrun."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from byol_edge.export.config import ExportConfig
from byol_edge.export.source import load_source
from byol_edge.runtime import ByolEdgeError, RunError, UsageError
from other_projects import behind, lightly_benchmark, linear, mlp, named, resnet18, sgd_state
from PIL import Image
from torch import Tensor, nn

CONFIG = ExportConfig(image_size=64)
KEY = "backbone.layer2.0.conv2.weight"

State = dict[str, Tensor]


def checkpoint() -> dict[str, Any]:
    """A good one. Its tensors are not to be written to; its dicts are."""
    return lightly_benchmark(resnet18(1), resnet18(2))


def saved(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def refusal(path: Path, config: ExportConfig = CONFIG) -> str:
    """The one line that says why a file is not read."""
    with pytest.raises(ByolEdgeError) as error:
        load_source(str(path), config)
    assert isinstance(error.value, (RunError, UsageError))
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 3000
    assert path.name in line
    return line


def write(folder: Path, content: bytes, name: str = "a.pth") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def test_the_good_one_is_read(tmp_path: Path):
    assert load_source(str(write(tmp_path, saved(checkpoint()))), CONFIG).spec.backbone == "resnet18"


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, weights=np.zeros(3))
    return file.getvalue()


OTHER_FILES: dict[str, Callable[[], bytes]] = {
    "picture": picture,
    "json": lambda: json.dumps({"backbone": "resnet18"}).encode(),
    "text": lambda: b"see the README\n",
    "page": lambda: b"<!DOCTYPE html><html><body>404</body></html>",
    "npz": archive,
    "zeros": lambda: bytes(4096),
    "h5": lambda: b"\x89HDF\r\n\x1a\n" + bytes(2048),
}


@pytest.mark.parametrize("ending", ["pth", "ckpt", "safetensors", "pkl"])
@pytest.mark.parametrize("kind", OTHER_FILES)
def test_another_kind_of_file_by_a_checkpoints_name(kind: str, ending: str, tmp_path: Path):
    line = refusal(write(tmp_path, OTHER_FILES[kind](), f"a.{ending}"))
    assert any(word in line for word in ("no checkpoint", "not a", "not the file", "only PyTorch's", "damaged"))


def test_a_checkpoint_by_another_formats_name_is_read_or_named(tmp_path: Path):
    state = named(resnet18(1), "backbone.")
    for path in (
        write(tmp_path, saved({"state_dict": state}), "a.safetensors"),
        write(tmp_path, safetensors.torch.save(state), "a.pth"),
    ):
        try:
            found = load_source(str(path), CONFIG)
        except RunError as error:
            assert "safetensors" in str(error) and "\n" not in str(error)
        else:
            assert torch.equal(found.network.backbone.state_dict()["conv1.weight"], state["backbone.conv1.weight"])


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated(share: float, zipped: bool, tmp_path: Path):
    content = saved(checkpoint(), _use_new_zipfile_serialization=zipped)
    line = refusal(write(tmp_path, content[: int(share * len(content))]))
    assert "damaged" in line or "cut" in line or "truncated" in line


def test_truncated_safetensors(tmp_path: Path):
    content = safetensors.torch.save(named(resnet18(1), ""))
    assert "damaged" in refusal(write(tmp_path, content[: len(content) // 2], "a.safetensors"))


def test_flipped_bytes_are_refused_or_change_numbers_alone(tmp_path: Path):
    content = bytearray(saved({"state_dict": named(resnet18(1), "backbone.")}))
    random = np.random.default_rng(0)
    for _ in range(6):
        changed = content.copy()
        for place in random.integers(len(content) - 40_000, len(content), 3):  # where the archive's directory is
            changed[place] ^= 0xFF
        path = write(tmp_path, bytes(changed))
        try:
            load_source(str(path), CONFIG)
        except (RunError, UsageError) as error:
            assert "\n" not in str(error)


class Runs:
    """Runs a command when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize("form", ["zip", "before 1.6", "pickle"])
@pytest.mark.parametrize("place", ["beside", "among the tensors", "hyper-parameters"])
def test_a_payload_is_named_and_not_run(form: str, place: str, tmp_path: Path):
    witness = tmp_path / "witness"
    payload = Runs(os.system, f"touch {witness}")
    content = checkpoint()
    if place == "beside":
        content["x"] = payload
    elif place == "among the tensors":
        content["state_dict"] = {**content["state_dict"], "backbone.x": payload}
    else:
        content["hyper_parameters"] = {"args": payload}
    if form == "pickle":
        path = write(tmp_path, pickle.dumps({"state_dict": {"a": 1}, "x": payload}, protocol=2))
    else:
        path = write(tmp_path, saved(content, _use_new_zipfile_serialization=form == "zip"))
    assert "system" in refusal(path)
    assert not witness.exists()


@pytest.mark.parametrize("name", ["eval", "exec", "__import__", "getattr"])
def test_functions_are_not_called(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Such a name may be passed over, as what mmengine's checkpoints mention is; nothing of it may be run."""
    witness = tmp_path / "witness"
    (tmp_path / "a_module_that_writes.py").write_text(f"open({str(witness)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    payload = {
        "eval": Runs(eval, f"open({str(witness)!r}, 'w')"),
        "exec": Runs(exec, f"open({str(witness)!r}, 'w')"),
        "__import__": Runs(__import__, "a_module_that_writes"),
        "getattr": Runs(getattr, Opens(witness), "content"),
    }[name]
    path = write(tmp_path, saved({**checkpoint(), "x": payload}))
    try:
        load_source(str(path), CONFIG)
    except (RunError, UsageError) as error:
        assert "\n" not in str(error)
    assert not witness.exists()


class Opens:
    """Writes a file when it is asked for its content."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    @property
    def content(self) -> None:
        Path(self.path).touch()


def change(alter: Callable[[State], None]) -> dict[str, Any]:
    content = checkpoint()
    alter(content["state_dict"])
    return content


@pytest.mark.parametrize("end", ["weight", "running_mean"])
def test_one_tensor_dropped(end: str, tmp_path: Path):
    key = KEY if end == "weight" else "backbone.layer3.1.bn2.running_mean"
    content = checkpoint()
    del content["state_dict"][key]
    line = refusal(write(tmp_path, saved(content)))
    assert key.removeprefix("backbone.") in line


def test_one_tensor_renamed_is_shown_beside_what_is_missing(tmp_path: Path):
    def rename(state: State) -> None:
        state["backbone.layer2.0.convolution2.weight"] = state.pop(KEY)

    line = refusal(write(tmp_path, saved(change(rename))))
    assert KEY.removeprefix("backbone.") in line and "convolution2" in line


def test_one_tensor_reshaped(tmp_path: Path):
    line = refusal(write(tmp_path, saved(change(lambda state: state.update({KEY: torch.zeros(128, 128, 1, 1)})))))
    assert "layer2.0.conv2.weight" in line
    assert "[128, 128, 1, 1]" in line


def test_one_tensor_of_another_channel_count(tmp_path: Path):
    line = refusal(write(tmp_path, saved(change(lambda state: state.update({KEY: torch.zeros(128, 64, 3, 3)})))))
    assert "layer2.0.conv2.weight" in line


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.bool, torch.complex64], ids=str)
def test_one_tensor_of_another_type(kind: torch.dtype, tmp_path: Path):
    line = refusal(write(tmp_path, saved(change(lambda state: state.update({KEY: state[KEY].to(kind)})))))
    assert "layer2.0.conv2.weight" in line
    assert str(kind) in line or str(kind).removeprefix("torch.") in line


@pytest.mark.parametrize("kind", ["sparse", "quantized", "meta"])
def test_one_tensor_of_another_layout(kind: str, tmp_path: Path):
    tensor = checkpoint()["state_dict"][KEY]
    made = {
        "sparse": lambda: tensor.to_sparse(),
        "quantized": lambda: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        "meta": lambda: tensor.to("meta"),
    }[kind]()
    line = refusal(write(tmp_path, saved(change(lambda state: state.update({KEY: made})))))
    assert "layer2.0.conv2.weight" in line or "damaged" in line or "quantized" in line


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_one_number_that_is_none(value: float, tmp_path: Path):
    def spoil(state: State) -> None:
        state[KEY] = state[KEY].clone()
        state[KEY][0, 0, 0, 0] = value

    line = refusal(write(tmp_path, saved(change(spoil))))
    assert "layer2.0.conv2.weight" in line and "finite" in line


def test_two_backbones_that_differ_and_neither_is_a_copy(tmp_path: Path):
    """Both are named: to take the first would be a guess."""
    state = named(resnet18(1), "left.backbone.") | named(resnet18(2), "right.backbone.")
    line = refusal(write(tmp_path, saved({"state_dict": state})))
    assert "left" in line and "right" in line


def test_two_backbones_that_are_equal_are_one(tmp_path: Path):
    state = named(resnet18(1), "left.backbone.") | named(resnet18(1), "right.backbone.")
    assert load_source(str(write(tmp_path, saved({"state_dict": state}))), CONFIG).spec.backbone == "resnet18"


def dcgan() -> nn.Module:
    layers = [nn.ConvTranspose2d(100, 64, 4), nn.BatchNorm2d(64), nn.ReLU(), nn.ConvTranspose2d(64, 3, 4), nn.Tanh()]
    return nn.ModuleDict({"main": nn.Sequential(*layers)})


def text_model() -> State:
    layer = "bert.encoder.layer.0."
    return {
        "bert.embeddings.word_embeddings.weight": torch.zeros(100, 32),
        "bert.embeddings.LayerNorm.weight": torch.zeros(32),
        **linear(f"{layer}attention.self.query.", 32, 32),
        **linear(f"{layer}attention.self.key.", 32, 32),
        **linear(f"{layer}intermediate.dense.", 32, 64),
    }


OTHER_NETWORKS: dict[str, Callable[[], Any]] = {
    "a classifier": lambda: {"state_dict": linear("fc.")},
    "heads": lambda: {"state_dict": mlp("projector.") | mlp("predictor.", inputs=16)},
    "a GAN": lambda: {"netG": dcgan().state_dict(), "netD": {}},
    "a text model": lambda: text_model(),
    "no names": lambda: [torch.zeros(3), torch.zeros(4)],
    "one tensor": lambda: torch.zeros(3, 3),
    "nothing": dict,
    "numbers": lambda: {"epoch": 3, "loss": [0.5, 0.25]},
    "a queue of embeddings": lambda: {"queue": torch.randn(128, 512), "queue_ptr": torch.zeros(1)},
    "the target alone": lambda: named(resnet18(2), "momentum_encoder."),
}


@pytest.mark.parametrize("name", OTHER_NETWORKS)
def test_no_backbone_in_it(name: str, tmp_path: Path):
    line = refusal(write(tmp_path, saved(OTHER_NETWORKS[name]())))
    assert any(word in line for word in ("no network", "holds no", "holds a copy", "not the weights"))


def test_an_optimizers_state(tmp_path: Path):
    line = refusal(write(tmp_path, saved({"epoch": 3, "optimizer": sgd_state(named(resnet18(1), ""))})))
    assert "optimizer" in line or "no state dict" in line or "no weights" in line


def test_an_optimizers_state_by_name(tmp_path: Path):
    """Averages of gradients have a network's names and shapes, but not its norms' statistics."""
    moments = {key: torch.zeros_like(each) for key, each in resnet18(1).named_parameters()}
    line = refusal(write(tmp_path, saved({"exp_avg": moments, "exp_avg_sq": moments})))
    assert "running_mean" in line or "optimizer" in line or "no backbone" in line


def test_a_git_lfs_pointer(tmp_path: Path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"
    for name in ("a.pth", "a.safetensors", "a.ckpt"):
        line = refusal(write(tmp_path, pointer, name))
        assert "LFS" in line


def test_an_empty_file(tmp_path: Path):
    for name in ("a.pth", "a.safetensors", "a"):
        assert "empty" in refusal(write(tmp_path, b"", name))


def test_a_folder_of_shards(tmp_path: Path):
    folder = tmp_path / "shards"
    folder.mkdir()
    state = named(resnet18(1), "")
    halves = list(state)[::2], list(state)[1::2]
    weight_map = {}
    for number, keys in enumerate(halves, start=1):
        name = f"model-{number:05}-of-00002.safetensors"
        safetensors.torch.save_file({key: state[key] for key in keys}, folder / name)
        weight_map |= dict.fromkeys(keys, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert "shard" in refusal(folder)
    line = refusal(folder / "model-00001-of-00002.safetensors")  # half a network
    assert "conv" in line or "bn" in line


def test_a_folder_of_deepspeed(tmp_path: Path):
    folder = tmp_path / "last.ckpt"
    (folder / "checkpoint").mkdir(parents=True)
    write(folder / "checkpoint", saved({"module": named(resnet18(1), "")}), "mp_rank_00_model_states.pt")
    refusal(folder)


def test_a_pickled_module_is_refused_and_says_what_to_do(tmp_path: Path):
    for content in (resnet18(1), {"model": resnet18(1), "epoch": 3}):
        line = refusal(write(tmp_path, saved(content)))
        assert "module" in line
        assert "state_dict" in line


def test_torchscript(tmp_path: Path):
    torch.jit.save(torch.jit.trace(nn.Linear(3, 3), torch.zeros(1, 3)), tmp_path / "a.pt")
    assert "TorchScript" in refusal(tmp_path / "a.pt")


def test_what_never_ends_is_not_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "zero.pth").symlink_to("/dev/zero")
    for name in ("pipe.pth", "zero.pth"):
        assert "not a file" in refusal(tmp_path / name)


def test_dicts_that_hold_themselves(tmp_path: Path):
    content: dict[str, Any] = {"state_dict": behind("backbone.", {"x.weight": torch.zeros(3)})}
    content["model"] = content
    refusal(write(tmp_path, saved(content)))


READ = """
import sys
from byol_edge.export.config import ExportConfig
from byol_edge.export.source import load_source
from byol_edge.runtime import RunError, UsageError
try:
    load_source(sys.argv[1], ExportConfig(image_size=64))
except (RunError, UsageError) as error:
    print("refused:", error)
"""


def test_references_that_grow_without_end(tmp_path: Path):
    """A few hundred bytes that would be 2⁴⁰ dicts to whoever follows each reference."""
    grown: Any = {"w": torch.zeros(2)}
    for number in range(40):
        grown = {f"a{number}": grown, f"b{number}": grown}
    path = write(tmp_path, saved({"state_dict": grown}))
    result = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("refused: ")
    assert len(result.stdout.splitlines()) == 1


def test_the_given_backbone_is_not_the_files(tmp_path: Path):
    path = write(tmp_path, saved(checkpoint()))
    line = refusal(path, ExportConfig(image_size=64, backbone="resnet50"))
    assert "resnet50" in line
