"""ONNX Runtime as an engine: the one that comes with every install."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .backend import ModelBytes
from .errors import EngineError, brief
from .onnx_file import ONNX
from .preprocessing import Pixels

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

CPU = "CPUExecutionProvider"

# Images of a batch that a thread takes at a time: with more, less of a small network's data stays in its cache.
SLICE = 8


class OnnxRuntimeBackend:
    """Runs an .onnx file, at any batch size.

    The threads work together on a single image, but share out a batch, so that they need not wait for each other at
    every layer: on two threads, a MobileNetV3-small is 1.2 to 1.5 times as fast.
    """

    name: ClassVar[str] = "onnxruntime"
    module: ClassVar[str] = "onnxruntime"
    formats: ClassVar[tuple[str, ...]] = (ONNX.name,)
    fast_on: ClassVar[tuple[str, ...]] = ()

    def __init__(self, start: Callable[[int], Any], threads: int, provider: str) -> None:
        """`start`: makes a session with that many threads."""
        self._start = start
        self._threads = threads
        self._shares = threads > 1 and provider == CPU
        self._session = start(threads)

    @staticmethod
    def load(model: ModelBytes, threads: int, device: str = "cpu", low_power: bool = False) -> OnnxRuntimeBackend:
        """`device`: "cpu", or the name of another execution provider ("cuda").

        `low_power`: threads sleep between calls, where they would otherwise spin. Raises EngineError if ONNX Runtime
        refuses the model, or lacks the device.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(f"the engine onnxruntime cannot be loaded: {brief(error)}") from error

        provider = _find_provider(device, onnxruntime.get_available_providers())

        def start(threads: int) -> Any:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            options.log_severity_level = 4  # what is less than fatal would be printed; errors are raised as well
            if low_power:
                options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            try:
                # With its fallback, ONNX Runtime prints errors, and runs on another device than the one asked for.
                return onnxruntime.InferenceSession(model.parts[0], options, providers=[provider], enable_fallback=0)
            except Exception as error:  # ONNX Runtime's own exception types are many and not public
                raise EngineError(
                    f"ONNX Runtime {onnxruntime.__version__} refuses the model: {brief(error)}"
                ) from error

        return OnnxRuntimeBackend(start, threads, provider)

    def run(self, images: Pixels) -> NDArray[np.float32]:
        """uint8 `[N, H, W, 3]` → float32 `[N, D]`. Safe to call from several threads."""
        return self._run(["embeddings"], images)[0]

    def run_all(self, images: Pixels) -> list[NDArray[np.float32]]:
        """The same, and each feature map `[N, C, H, W]` after it, in the model's order."""
        return self._run(None, images)

    def _run(self, outputs: Sequence[str] | None, images: Pixels) -> list[NDArray[np.float32]]:
        """The outputs of these names, or all of them."""
        if not self._shares or len(images) < self._threads:
            return _run(self._session, outputs, images)
        session, pool = self._sharing
        size = min(SLICE, -(-len(images) // self._threads))
        slices = (images[start : start + size] for start in range(0, len(images), size))
        return [np.concatenate(each) for each in zip(*pool.map(partial(_run, session, outputs), slices), strict=True)]

    @cached_property
    def _sharing(self) -> tuple[Any, ThreadPoolExecutor]:
        """A session that runs on the calling thread, and the threads that call it. Made at the first batch."""
        from concurrent.futures import ThreadPoolExecutor

        return self._start(1), ThreadPoolExecutor(self._threads, "byol-edge-embed")


def try_out(model: ModelBytes) -> None:
    """Embeds a blank image. Raises EngineError where ONNX Runtime refuses the model, or fails."""
    backend = OnnxRuntimeBackend.load(model, 1)
    shape = backend._session.get_inputs()[0].shape[1:]
    try:
        backend.run(np.zeros((1, *shape), np.uint8))
    except Exception as error:  # of types that are many and not public; a shape may be text, too
        raise EngineError(f"ONNX Runtime fails on the model: {brief(error)}") from error


def _run(session: Any, outputs: Sequence[str] | None, images: Pixels) -> list[NDArray[np.float32]]:
    return session.run(outputs, {"images": images})


def _find_provider(device: str, available: list[str]) -> str:
    """ONNX Runtime's name for a device: "CUDAExecutionProvider" for "cuda"."""
    local = [name for name in available if not name.startswith("Azure")]  # a remote service, part of every build
    devices = {name.removesuffix("ExecutionProvider").lower(): name for name in local}
    if device not in devices:
        has = ", ".join(sorted(devices))
        raise EngineError(f"{{device}}: ONNX Runtime has no such device here; it has {has}", device=device)
    return devices[device]
