import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from byol_edge.runtime.model_file import METADATA_KEY
from byol_edge.runtime.openvino_backend import import_openvino


def operations(bundle: Path, name: str) -> list[Any]:
    return import_openvino().Core().read_model(bundle / name).get_ordered_ops()


@pytest.mark.parametrize("name", ["fp32.xml", "int8.xml"])
def test_a_file_holds_its_essentials_and_nothing_of_this_machine(finished_bundle: Path, name: str):
    text = (finished_bundle / name).read_text()
    assert text.count(f"<{METADATA_KEY} ") == 1
    assert f"&quot;variant&quot;: &quot;{name}&quot;" in text
    assert "encoder_sha256" in text
    assert not re.search(r"/home/|/root/|/tmp/|site-packages|\.py\b", text)


@pytest.mark.parametrize("name", ["fp32.xml", "int8.xml"])
def test_the_interface_is_that_of_the_design(finished_bundle: Path, name: str):
    model = import_openvino().Core().read_model(finished_bundle / name)
    assert model.input(0).get_any_name() == "images"
    assert model.output(0).get_any_name() == "embeddings"
    assert model.input(0).get_element_type().get_type_name() == "u8"
    assert str(model.input(0).partial_shape) == "[?,32,32,3]"


def test_fp32_weights_are_not_compressed(finished_bundle: Path):
    constants = [op for op in operations(finished_bundle, "fp32.xml") if op.get_type_name() == "Constant"]
    assert not any(op.get_element_type().get_type_name() == "f16" for op in constants)


def test_the_network_alone_is_quantized(finished_bundle: Path):
    quantized = operations(finished_bundle, "int8.xml")
    kinds = Counter(op.get_type_name() for op in quantized)
    assert kinds["Convolution"] == 4
    assert kinds["FakeQuantize"] >= 4
    assert (
        sum(op.get_type_name() == "Constant" and op.get_element_type().get_type_name() == "i8" for op in quantized) == 4
    )
    # from the last pooling on, to unit length, in float
    last = max(index for index, op in enumerate(quantized) if op.get_type_name() == "ReduceMean")
    tail = {op.get_type_name() for op in quantized[last + 1 :]}
    assert "FakeQuantize" not in tail
    assert "Divide" in tail or "Multiply" in tail
