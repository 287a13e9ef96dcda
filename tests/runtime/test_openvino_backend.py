import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byol_edge.runtime import EngineError, openvino_backend
from byol_edge.runtime.backend import ModelBytes
from byol_edge.runtime.errors import MOST_CHARACTERS
from byol_edge.runtime.openvino_backend import OpenVinoBackend
from byol_edge.runtime.preprocessing import Pixels

SIGNAL_AFTERWARDS = """
import gc, os, signal, sys
import numpy as np
from byol_edge.runtime import Encoder
encoder = Encoder(sys.argv[1], "fp32.xml")
encoder.run(np.zeros((64, 32, 32, 3), np.uint8))
del encoder
gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("caught"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.fixture(scope="module")
def model(finished_bundle: Path) -> ModelBytes:
    return ModelBytes("xml", tuple((finished_bundle / name).read_bytes() for name in ("fp32.xml", "fp32.bin")))


class WatchedCore:
    """OpenVINO's core, which notes what is compiled, and the batch size of each call."""

    def __init__(self) -> None:
        self._core = openvino_backend.shared_core()
        self.available_devices = self._core.available_devices
        self.read_model = self._core.read_model
        self.compiled: list[Any] = []
        self.called: list[int] = []

    def compile_model(self, model: Any, *settings: Any) -> Callable[[list[Pixels]], Any]:
        compiled = self._core.compile_model(model, *settings)
        self.compiled.append(compiled)

        def call(inputs: list[Pixels]) -> Any:
            self.called.append(len(inputs[0]))
            return compiled(inputs)

        return call

    @property
    def sizes(self) -> list[int]:
        return [each.input(0).shape[0] for each in self.compiled]


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> WatchedCore:
    core = WatchedCore()
    monkeypatch.setattr(openvino_backend, "shared_core", lambda: core)
    return core


@pytest.mark.parametrize(("images", "size"), [(1, 1), (5, 1), (6, 8), (23, 8), (24, 32), (1000, 32)])
def test_a_batch_is_cut_into_few_sizes(model: ModelBytes, core: WatchedCore, images: int, size: int):
    vectors = OpenVinoBackend.load(model, threads=1).run(np.zeros((images, 32, 32, 3), np.uint8))
    assert core.called[0] == size
    assert len(vectors) == images


def test_it_computes_in_float32_whatever_the_cpu_prefers(model: ModelBytes, core: WatchedCore):
    OpenVinoBackend.load(model, threads=1)
    (compiled,) = core.compiled
    assert str(compiled.get_property("INFERENCE_PRECISION_HINT")) in ("f32", "<Type: 'float32'>")


def test_only_the_sizes_that_are_used_are_compiled(model: ModelBytes, core: WatchedCore):
    backend = OpenVinoBackend.load(model, threads=1)
    assert backend.run(np.zeros((33, 32, 32, 3), np.uint8)).shape[0] == 33
    assert backend.run(np.zeros((33, 32, 32, 3), np.uint8)).shape[0] == 33
    assert core.sizes == [1, 32]


def test_a_batch_keeps_its_order_however_it_is_cut(model: ModelBytes, random: np.random.Generator):
    backend = OpenVinoBackend.load(model, threads=1)
    images = random.integers(0, 256, (45, 32, 32, 3), dtype=np.uint8)  # 32, 8 and five times 1
    expected = np.concatenate([backend.run(image[None]) for image in images])
    np.testing.assert_allclose(backend.run(images), expected, atol=1e-5)


def test_a_damaged_model_is_refused():
    with pytest.raises(EngineError, match=r"OpenVINO .* refuses the model"):
        OpenVinoBackend.load(ModelBytes("xml", (b"<net/>", b"")), threads=1)


def test_a_process_takes_signals_after_its_last_encoder_is_gone(finished_bundle: Path):
    pytest.importorskip("openvino")
    command = [sys.executable, "-c", SIGNAL_AFTERWARDS, str(finished_bundle)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "caught\n")


NOT_UTF_8 = UnicodeDecodeError("utf-8", b"\xe8", 0, 1, "invalid continuation byte")


@pytest.mark.parametrize(
    "error",
    [NOT_UTF_8, RuntimeError("a\n\x1b[31mb " * 9999), SystemError(), MemoryError(), OverflowError("x"), TypeError()],
)
def test_whatever_it_raises_is_an_engine_error_of_one_line(
    model: ModelBytes, core: WatchedCore, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(core, "read_model", fail)
    with pytest.raises(EngineError, match=r"^OpenVINO [\d.]+ refuses the model: \S") as raised:
        OpenVinoBackend.load(model, threads=1)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < MOST_CHARACTERS + 100
