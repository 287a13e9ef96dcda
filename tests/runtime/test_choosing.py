import platform
import sys
from pathlib import Path
from typing import Any

import pytest
from byol_edge.runtime import Bundle, Encoder, EngineError
from byol_edge.runtime.bundle import Agreement, Variant
from byol_edge.runtime.choosing import choose
from byol_edge.runtime.openvino_backend import OpenVinoBackend
from sabotage import change_manifest


def chosen(bundle: Path, variant: str = "auto", backend: str = "auto") -> list[tuple[str, str]]:
    return [(each.name, engine.name) for each, engine in choose(Bundle.open(bundle), variant, backend)]


def set_engines(bundle: Path, variant: str, **engines: tuple[bool, float]) -> None:
    entries = {name: {"passes": passes, "cosine": cosine} for name, (passes, cosine) in engines.items()}
    change_manifest(bundle, lambda manifest: manifest["variants"][variant].update(engines=entries))


@pytest.mark.parametrize(
    ("machine", "first"), [("x86_64", "openvino"), ("AMD64", "openvino"), ("aarch64", "onnxruntime")]
)
def test_auto_takes_the_engine_that_is_fast_on_this_machine(
    finished_bundle: Path, monkeypatch: pytest.MonkeyPatch, machine: str, first: str
):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    default = Bundle.open(finished_bundle).default.name
    assert chosen(finished_bundle)[0] == (default, first)
    assert Encoder(finished_bundle).engine == first
    assert chosen(finished_bundle, "int8")[0] == ("int8.xml" if first == "openvino" else "int8.onnx", first)


def test_an_engine_that_is_not_installed_comes_last(finished_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(OpenVinoBackend, "module", "no_such_module")
    assert [engine for _, engine in chosen(finished_bundle)] == ["onnxruntime", "openvino"]


def test_an_engine_on_which_a_variant_missed_its_gates_is_not_taken(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    set_engines(bundle, "int8.onnx", onnxruntime=(True, 1.0), openvino=(False, 0.9))
    assert chosen(bundle, "int8.onnx") == [("int8.onnx", "onnxruntime"), ("int8.onnx", "openvino")]
    set_engines(bundle, "int8.onnx", onnxruntime=(False, 1.0), openvino=(False, 0.9))
    assert chosen(bundle, "int8.onnx")[0] == ("int8.onnx", "openvino")
    set_engines(bundle, "int8.onnx", onnxruntime=(True, 1.0))  # exported where there was no other
    assert chosen(bundle, "int8.onnx")[0] == ("int8.onnx", "onnxruntime")


def test_auto_goes_on_with_the_next_engine(finished_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any) -> None:
        raise EngineError("OpenVINO is out of order")

    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(OpenVinoBackend, "load", fail)
    assert Encoder(finished_bundle).engine == "onnxruntime"
    with pytest.raises(EngineError, match="OpenVINO is out of order"):
        Encoder(finished_bundle, backend="openvino")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=r"OpenVINO is out of order; .* onnxruntime cannot be loaded"):
        Encoder(finished_bundle)


def test_a_file_alone_takes_the_same_engine_everywhere(finished_bundle: Path):
    assert Encoder(finished_bundle / "int8.onnx").engine == "onnxruntime"


def make(**cosines: float) -> Variant:
    engines = tuple(Agreement(name, True, cosine) for name, cosine in cosines.items())
    return Variant("int8.onnx", "int8", "onnx", ("int8.onnx",), True, 0.99, engines, {})


def test_engines_agree_if_the_angle_between_them_cannot_be_too_large():
    variant = make(own=1.0, near=0.998, far=0.985)
    assert variant.agree("own", "near") and variant.agree("near", "own")
    assert not variant.agree("own", "far")
    assert variant.agree("far", "far") and variant.agree("unknown", "unknown")
    assert not variant.agree("own", "unknown")
    assert not make(own=1.0, a=0.995, b=0.995).agree("a", "b")  # together they may be 11.5 degrees apart
    assert make(own=1.0, a=0.9999, b=0.9999).agree("a", "b")
