from typing import Any

import pytest
from byol_edge.export.config import ExportConfig
from byol_edge.runtime import UsageError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"formats": ()}, "formats=: has to be onnx, openvino, or one of these"),
        ({"formats": ("onnx", "tflite")}, "formats=onnx,tflite: has to be onnx, openvino, or one of these"),
        ({"target": "gpu"}, "target=gpu: has to be cpu-vnni or cpu-avx2 or arm"),
        ({"network": "teacher"}, "network=teacher: has to be online or target"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_by_name(settings: dict[str, Any], message: str):
    with pytest.raises(UsageError) as raised:
        ExportConfig(**settings)
    assert str(raised.value) == message


def test_one_format_or_both_can_be_asked_for():
    assert ExportConfig().formats == ("onnx", "openvino")
    assert ExportConfig(formats=("openvino",)).formats == ("openvino",)
