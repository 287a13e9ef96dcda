"""The model file formats there are; a new one is one file and one entry here."""

from __future__ import annotations

from typing import Any

from .format import ModelFormat
from .onnx_format import OnnxFormat
from .openvino_format import OpenVinoFormat

FORMATS: tuple[ModelFormat[Any], ...] = (OnnxFormat(), OpenVinoFormat())
