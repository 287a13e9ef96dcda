"""The README's first command, as typed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from byol_edge.runtime import Encoder


@pytest.mark.slow
def test_the_demo_holds_what_it_promises(tmp_path: Path):
    command = [sys.executable, "-m", "byol_edge", "demo", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    assert printed["failures"] == []
    rows = {row["name"]: row for row in printed["rows"]}
    assert list(rows) == [
        "raw pixels", "untrained", "PyTorch", "fp32.onnx", "fp32.xml", "int8.onnx", "int8.xml",
    ]  # fmt: skip
    for floor in ("raw pixels", "untrained"):
        assert rows["PyTorch"]["few_shot"] >= rows[floor]["few_shot"] + 0.02
    for name in ("int8.onnx", "int8.xml"):
        assert rows[name]["few_shot"] >= rows["PyTorch"]["few_shot"] - 0.005
        assert rows[name]["size"] < 0.3 * rows["PyTorch"]["size"]
        assert rows[name]["cosine"] >= 0.99
    out = tmp_path / "byol-edge-demo"
    assert Encoder(out / "bundle").self_test().passed

    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert json.loads((out / "demo.json").read_text())["finished"]
