"""OpenVINO as an engine: often the faster one on Intel CPUs; `pip install 'byol-edge[openvino]'`."""

from __future__ import annotations

import io
import os
import sys
import threading
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .backend import ModelBytes
from .errors import EngineError, brief
from .onnx_file import ONNX
from .onnxruntime_backend import try_out
from .openvino_file import OPENVINO_IR
from .preprocessing import Pixels

# Static shapes are faster than a dynamic one, and INT8 with a dynamic one crashes on CPUs with AMX (openvino issue
# 37577). A batch is cut into slices of these sizes; the last one is padded.
BATCH_SIZES = (1, 8, 32)


class OpenVinoBackend:
    """Runs an IR (.xml with its .bin) or an .onnx file, in float32 where the model is float."""

    name: ClassVar[str] = "openvino"
    module: ClassVar[str] = "openvino"
    formats: ClassVar[tuple[str, ...]] = (OPENVINO_IR.name, ONNX.name)
    # There, in batches of 32, INT8 is 1.1 to 1.5 times as fast as by ONNX Runtime, FP32 0.8 to 1.2 (docs/runtime.md).
    fast_on: ClassVar[tuple[str, ...]] = ("x86_64", "AMD64")

    def __init__(self, model: ModelBytes, threads: int, device: str) -> None:
        self._model = model
        self._threads = threads
        self._device = device
        self._compiled: dict[int, Any] = {}
        self._lock = threading.Lock()

    @staticmethod
    def load(model: ModelBytes, threads: int, device: str = "cpu", low_power: bool = False) -> OpenVinoBackend:
        """`device`: "cpu", "gpu", "npu", …

        `low_power` changes nothing: OpenVINO's threads sleep between calls anyway. Raises EngineError.
        """
        backend = OpenVinoBackend(model, threads, device)
        backend._compile(BATCH_SIZES[0])
        return backend

    def run(self, images: Pixels) -> NDArray[np.float32]:
        """uint8 `[N, H, W, 3]` → float32 `[N, D]`. Safe to call from several threads."""
        return self._run(images, 1)[0]

    def run_all(self, images: Pixels) -> list[NDArray[np.float32]]:
        """The same, and each feature map `[N, C, H, W]` after it, in the model's order."""
        return self._run(images, None)

    def _run(self, images: Pixels, outputs: int | None) -> list[NDArray[np.float32]]:
        """The first so many outputs, or all. The engine computes all of them in any case."""
        slices = []
        while len(images):
            size = _slice_size(len(images))
            slices.append(self._infer(images[:size], size, outputs))
            images = images[size:]
        return [np.concatenate(each) for each in zip(*slices, strict=True)]

    def _infer(self, images: Pixels, size: int, outputs: int | None) -> list[NDArray[np.float32]]:
        padded = np.zeros((size, *images.shape[1:]), np.uint8)
        padded[: len(images)] = images
        with self._lock:  # one request per size, whose output tensor the next call overwrites
            if size not in self._compiled:
                self._compile(size)
            found = list(self._compiled[size]([padded]).values())[:outputs]
            return [each[: len(images)].copy() for each in found]

    def _compile(self, size: int) -> None:
        self._compiled[size] = _compile(self._model, size, self._threads, self._device)


def _slice_size(images: int) -> int:
    """The largest size that this many images fill to three quarters or more: the rest of it is wasted work."""
    return max(size for size in BATCH_SIZES if size == 1 or 4 * images >= 3 * size)


def _compile(source: ModelBytes, size: int, threads: int, device: str) -> Any:
    openvino = import_openvino()
    core = shared_core()
    devices = [name.lower() for name in core.available_devices]  # "gpu.0" is "gpu" too
    if device not in (*devices, *(name.split(".")[0] for name in devices)):
        has = ", ".join(devices)
        raise EngineError(f"{{device}}: OpenVINO has no such device here; it has {has}", device=device)
    try:
        if source.format == OPENVINO_IR.name:
            weights = openvino.Tensor(np.frombuffer(source.parts[1], np.uint8))
            model = core.read_model(source.parts[0], weights)
        else:
            if size == BATCH_SIZES[0]:
                try_out(source)  # where a layer cannot be computed, OpenVINO's reader ends the process
            model = core.read_model(io.BytesIO(source.parts[0]))
        model.reshape([size, *list(model.input(0).partial_shape)[1:]])
        settings: dict[str, Any] = {
            # The CPU plug-in prefers bf16 where the CPU has it: an error of 7e-3 instead of 1e-6.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        if device == "cpu":
            settings["INFERENCE_NUM_THREADS"] = threads
        return core.compile_model(model, device.upper(), settings)
    except Exception as error:  # a message of OpenVINO's that is not UTF-8 arrives as UnicodeDecodeError
        version = openvino.__version__.split("-")[0]
        raise EngineError(f"OpenVINO {version} refuses the model: {brief(error)}") from error


def shared_core() -> Any:
    """The one Core of this process, its CPU plug-in loaded.

    It is never let go. On CPUs with AMX the plug-in gives the process a signal stack and unmaps it when the last Core
    goes, and the next signal (a data loader's worker that ends, say) is a segmentation fault.

    Raises EngineError in a process that was forked from one with a Core: about one in five of such processes waits for
    ever for threads that stayed in the parent, with a Core of its own, too.
    """
    core, process = _start_core()
    if process != os.getpid():
        raise EngineError(
            "OpenVINO ran before this process was forked, and its threads stayed behind: start processes by "
            "multiprocessing's 'spawn', or take backend='onnxruntime'"
        )
    return core


@cache
def _start_core() -> tuple[Any, int]:
    """A Core, and the process that it belongs to."""
    try:
        core = import_openvino().Core()
        core.get_versions("CPU")
    except EngineError:
        raise
    except Exception as error:
        raise EngineError(f"OpenVINO cannot start: {brief(error)}") from error
    return core, os.getpid()


def import_openvino() -> Any:
    """The openvino module, its telemetry off. Raises EngineError that says how to install it."""
    # Importing openvino reports it to a server, and NNCF does the same. Both do nothing of the kind where their
    # telemetry package is missing, so they are told that it is.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ModuleNotFoundError:
        raise EngineError("the engine openvino is not installed: pip install 'byol-edge[openvino]'") from None
    except ImportError as error:
        raise EngineError(f"the engine openvino cannot be loaded: {brief(error)}") from error
    return openvino
