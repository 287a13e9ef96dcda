"""`embed` with weights that were not exported."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from byol_edge.models.backbones import conv4
from byol_edge.runtime import Encoder, join_vectors, load_vectors
from byol_edge.runtime.shards import shard_folder
from byol_edge.runtime.share import Share
from commands import call, fails


def test_a_run_is_embedded_with_as_its_bundle_is(run: Path, finished_bundle: Path, photos: Path, tmp_path: Path):
    (run / "calibration.npz").unlink()  # that is for exports
    done = call("embed", run, photos, "-o", tmp_path / "v.npz")
    assert done.exit_code == 0, done.output
    content = load_vectors(tmp_path / "v.npz")
    assert content.model.endswith(":fp32") and content.engine == "pytorch"
    assert f"120 vectors, of 256 numbers each, by {content.model} on pytorch" in done.stdout
    exported = Encoder(finished_bundle, "fp32").embed(content.sources)
    np.testing.assert_allclose(content.vectors, exported, atol=1e-5)


def test_a_checkpoint_is_told_what_it_is(photos: Path, tmp_path: Path):
    torch.save(conv4().state_dict(), tmp_path / "theirs.pt")
    command = ("embed", tmp_path / "theirs.pt", photos, "-o", tmp_path / "v.npz", "--backbone", "conv4")
    assert "give --image-size PIXELS" in fails(2, *command)
    assert call(*command, "--image-size", 32, "--mean", 0.5, "--std", 0.5).exit_code == 0
    # Another preprocessing makes other vectors.
    others = ("--image-size", 32, "--mean", 0.4, "--std", 0.5, "--resume")
    assert "do not mix" in fails(1, *command, *others)
    same = call(*command, "--image-size", 32, "--mean", 0.5, "--std", 0.5, "--resume")
    assert "is finished already" in same.stdout


def test_it_goes_on_where_it_was_stopped(run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("byol_edge.runtime.embedding.SHARD_IMAGES", 32)
    command = ("embed", run, photos, "--batch-size", 16, "-o")
    assert call(*command, tmp_path / "whole.npz").exit_code == 0
    kept: list[Path] = []

    def stop(*_: object) -> None:
        kept.append(Path(shutil.copytree(shard_folder(tmp_path / "v.npz"), tmp_path / "kept")))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("byol_edge.runtime.embedding.join_shards", stop)
        stopped = call(*command, tmp_path / "v.npz")
    assert stopped.exit_code == 130
    assert "--resume goes on" in stopped.stderr
    sorted(shard_folder(tmp_path / "v.npz").glob("*.npz"))[-1].unlink()
    assert call(*command, tmp_path / "v.npz", "--resume").exit_code == 0
    assert (tmp_path / "v.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def stop_by_ctrl_c(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("finished", [False, True])
def test_resuming_takes_the_variant_and_the_engine_that_began(
    finished_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: bool
):
    default, out = Encoder(finished_bundle), tmp_path / "v.npz"
    variant = "int8.onnx" if default.variant == "fp32.onnx" else "fp32.onnx"
    engine = "onnxruntime" if default.engine == "openvino" else "openvino"
    command = ("embed", finished_bundle, photos, "-o", out)
    chosen = ("--variant", variant, "--backend", engine)
    assert call(*command, *chosen).exit_code == 0
    whole = out.read_bytes()
    if not finished:
        with monkeypatch.context() as patch:
            patch.setattr("byol_edge.runtime.embedding.join_shards", stop_by_ctrl_c)
            assert call(*command, *chosen, "--overwrite").exit_code == 130
        out.unlink()
        default_again = fails(1, *command, "--resume", "--variant", "auto", "--backend", "auto")
        assert f" on {engine}, and these would be by {default.id} on {default.engine}" in default_again
    resumed = call(*command, "--resume")
    assert resumed.exit_code == 0, resumed.output
    content = load_vectors(out)
    assert content.model.endswith(f":{variant}") and content.engine == engine
    assert out.read_bytes() == whole


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--variant", "auto"), "--variant auto: {} runs in PyTorch"),
        (("--backend", "openvino"), "--backend openvino: {} runs in PyTorch"),
        (("--threads", 2), "--threads 2: {} runs in PyTorch"),
        (("--low-power",), "--low-power: {} runs in PyTorch"),
        (("--public-key", "key.pem"), "--public-key key.pem: {} runs in PyTorch"),
    ],
)
def test_what_is_for_bundles_is_refused(
    finished_run: Path, photos: Path, tmp_path: Path, options: tuple[object, ...], reason: str
):
    line = fails(2, "embed", finished_run, photos, "-o", tmp_path / "v.npz", *options)
    assert reason.format(finished_run) in line


def test_what_a_bundle_says_itself_is_refused(finished_bundle: Path, photos: Path, tmp_path: Path):
    for source in (finished_bundle, finished_bundle / "fp32.onnx"):
        for flag, value in (("--image-size", 64), ("--backbone", "conv4"), ("--mean", 0.5), ("--std", 0.5)):
            line = fails(2, "embed", source, photos, "-o", tmp_path / "v.npz", flag, value)
            assert f"{flag} " in line
            assert "has its own, as exported" in line


WITHOUT_PYTORCH = """
import sys
for name in ("torch", "timm", "onnx"):
    sys.modules[name] = None
from byol_edge.cli.main import cli
sys.exit(cli(standalone_mode=True))
"""


def test_without_pytorch_weights_need_it_and_a_wrong_path_does_not(finished_run: Path, photos: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "theirs.pt").touch()
    for source, reason in (
        ("imagenet", "which is not installed: pip install 'byol-edge[export]'"),
        ("timm:resnet18", "which is not installed: pip install"),
        (finished_run, "which is not installed: pip install"),
        (tmp_path / "theirs.pt", "which is not installed: pip install"),
        (tmp_path / "gone", "no such folder; `byol-edge export RUN --out BUNDLE` makes one"),
        (tmp_path / "gone.onnx", "gone.onnx"),
        (tmp_path / "empty", "not a bundle: it holds no manifest.json"),
    ):
        command = [sys.executable, "-c", WITHOUT_PYTORCH, "embed", str(source), str(photos), "-o", "v.npz"]
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert reason in line


def test_a_path_that_is_named_as_weights_is_asked_for_otherwise(
    finished_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished_bundle, "imagenet")
    assert "write ./imagenet for the path" in fails(2, "embed", "imagenet", photos, "-o", "v.npz")
    assert call("embed", "./imagenet", photos, "-o", "v.npz").exit_code == 0


def test_shares_hold_together_what_one_process_makes(finished_bundle: Path, photos: Path, tmp_path: Path):
    command = ("embed", finished_bundle, photos, "-o")
    assert call(*command, tmp_path / "whole.parquet").exit_code == 0
    for number in range(5):
        assert call(*command, tmp_path / "v.parquet", "--shards", f"{number}/5").exit_code == 0
    parts = sorted(tmp_path.glob("v-*.parquet"))
    assert [path.name for path in parts] == [f"v-{number:05}-of-00005.parquet" for number in range(5)]
    join_vectors(parts, tmp_path / "joined.parquet")
    whole, joined = (load_vectors(tmp_path / f"{name}.parquet") for name in ("whole", "joined"))
    rows = [joined.sources.index(source) for source in whole.sources]
    assert len(joined.sources) == len(rows) == 120
    assert joined.vectors[rows].tobytes() == whole.vectors.tobytes()


def test_a_share_is_resumed_replaced_and_strict_by_itself(
    finished_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    images = Path(shutil.copytree(photos, tmp_path / "images"))
    (broken,) = (images / "disc" / "00.jpg",)
    broken.write_bytes(b"x")
    command = ("embed", finished_bundle, images, "-o", tmp_path / "v.npz", "--shards")
    share = next(number for number in range(3) if broken in Share(number, 3).find_images(images))
    other = (share + 1) % 3
    assert "1 of " in fails(1, *command, f"{share}/3", "--strict")
    assert call(*command, f"{other}/3", "--strict").exit_code == 0
    assert "exists already" in fails(2, *command, f"{other}/3")
    assert "is finished already" in call(*command, f"{other}/3", "--resume").stdout
    assert "left out: 1 unreadable image" in call(*command, f"{share}/3", "--resume").stdout
    assert call(*command, f"{share}/3", "--overwrite").exit_code == 0
    assert sorted(path.name for path in tmp_path.glob("v*")) == [
        f"v-{number:05}-of-00003.npz" for number in sorted((share, other))
    ]


def test_an_empty_share_is_an_empty_file(finished_bundle: Path, photos: Path, tmp_path: Path):
    (tmp_path / "images").mkdir()
    shutil.copy(photos / "disc" / "00.png", tmp_path / "images")
    shown = [
        call("embed", finished_bundle, tmp_path / "images", "-o", tmp_path / "v.parquet", "--shards", f"{number}/3")
        for number in range(3)
    ]
    assert [each.exit_code for each in shown] == [0, 0, 0]
    assert sorted(each.stdout.split(": ")[1].split(",")[0] for each in shown) == ["0 vectors", "0 vectors", "1 vector"]
    assert join_vectors(sorted(tmp_path.glob("v-*")), tmp_path / "joined.npz") == 1


def test_what_is_no_share_is_refused_before_the_work(photos: Path, tmp_path: Path):
    command = ("embed", "no-bundle", photos, "-o", tmp_path / "v.npz", "--shards")
    assert "--shards 16/16: the shares of 16 are 0/16 to 15/16, counted from 0" in fails(2, *command, "16/16")
    assert "--shards three: has to be I/N" in fails(2, *command, "three")
    assert "--shards : has to be I/N" in fails(2, *command, "")
    assert list(tmp_path.iterdir()) == []
