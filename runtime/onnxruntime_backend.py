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
    """Runs an .onnx file on the CPU, any batch size."""

    name = "onnxruntime"
    formats = ("onnx",)

    def __init__(self, session: Any) -> None:
        self._session = session

    @staticmethod
    def load(contents: tuple[bytes, ...], threads: int) -> OnnxRuntimeBackend:
        """`contents`: the .onnx file's bytes. Raises EngineError if ONNX Runtime refuses them."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; warnings about a graph are for whoever exported it
        try:
            session = onnxruntime.InferenceSession(contents[0], options, providers=["CPUExecutionProvider"])
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
