"""ONNX Runtime as an engine: the one that every install has."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import METADATA_KEY
from .errors import BundleError, EngineError
from .preprocessing import Pixels


class OnnxRuntimeBackend:
    """Runs an .onnx file, any batch size."""

    name = "onnxruntime"
    formats = ("onnx",)

    def __init__(self, session: Any) -> None:
        self._session = session

    @staticmethod
    def load(
        contents: tuple[bytes, ...], threads: int, device: str = "cpu", low_power: bool = False
    ) -> OnnxRuntimeBackend:
        """`contents`: the .onnx file's bytes. `device`: "cpu", or what another execution provider is called ("cuda").

        `low_power`: threads sleep between calls, where they would else spin. Raises EngineError if ONNX Runtime
        refuses the model, or lacks the device.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; warnings about a graph are for whoever exported it
        if low_power:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        provider = _find_provider(device, onnxruntime.get_available_providers())
        try:
            session = onnxruntime.InferenceSession(contents[0], options, providers=[provider])
        except Exception as error:  # ONNX Runtime's own exception types are many and not public
            raise EngineError(f"ONNX Runtime {onnxruntime.__version__} refuses the model: {error}") from error
        return OnnxRuntimeBackend(session)

    def run(self, images: Pixels) -> NDArray[np.float32]:
        """uint8 `[N, H, W, 3]` → float32 `[N, D]`. Safe to call from several threads."""
        return self._session.run(["embeddings"], {"images": images})[0]

    def metadata(self) -> dict[str, Any]:
        """What export wrote into the file of how to feed it. Raises BundleError where there is nothing."""
        text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is None:
            raise BundleError("the .onnx file was not exported by byol-edge: its metadata does not say how to feed it")
        return json.loads(text)


def _find_provider(device: str, available: list[str]) -> str:
    """ONNX Runtime's name for a device: "CUDAExecutionProvider" for "cuda"."""
    local = [name for name in available if not name.startswith("Azure")]  # a remote service, in every build
    devices = {name.removesuffix("ExecutionProvider").lower(): name for name in local}
    if device not in devices:
        raise EngineError(f"ONNX Runtime has no device {device!r} here; it has {', '.join(sorted(devices))}")
    return devices[device]
