"""The model file formats there are; a new one is one file and one entry here."""

from __future__ import annotations

from typing import Any

from .format import ExportFormat
from .onnx_format import OnnxFormat
from .openvino_format import OpenVinoFormat

FORMATS: tuple[ExportFormat[Any], ...] = (OnnxFormat(), OpenVinoFormat())
