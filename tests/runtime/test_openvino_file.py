from pathlib import Path

import pytest
from byol_edge.runtime.openvino_file import check


@pytest.fixture(scope="module")
def exported(finished_bundle: Path) -> tuple[bytes, bytes]:
    return (finished_bundle / "int8.xml").read_bytes(), (finished_bundle / "int8.bin").read_bytes()


@pytest.mark.parametrize("name", ["fp32", "int8"])
def test_what_is_exported_is_let_through(finished_bundle: Path, mapped_bundle: Path, name: str):
    for bundle, maps in ((finished_bundle, 0), (mapped_bundle, 2)):
        assert check([(bundle / f"{name}{suffix}").read_bytes() for suffix in (".xml", ".bin")]) == maps


@pytest.mark.parametrize(
    ("was", "becomes", "reason"),
    [
        (b'type="ReLU"', b'type="Loop"', "the layer 'Loop'"),
        (b'type="ReLU"', b'type="&#76;oop"', "the layer 'Loop'"),
        (b'type="ReLU"', b'type="tensorITERATOR"', "the layer 'tensorITERATOR'"),
        (b'type="ReLU"', b'type="parameter"', "one tensor"),
        (b'type="ReLU" version="opset1"', b"type='If' version='opset8'", "the layer 'If'"),
        (b'type="ReLU" version="opset1"', b'type="ReLU" version="mine"', "the layer 'ReLU'"),
        (b'offset="0"', b'offset="-8"', "not in its .bin file"),
        (b'offset="0"', b'offset="99999999"', "not in its .bin file"),
        (b'type="Parameter"', b'type="ReLU"', "one tensor"),
        (b'type="Result"', b'type="ReLU"', "gives none"),
        (b'<?xml version="1.0"?>', b'<!DOCTYPE net [<!ENTITY a "aaaa">]>', "a type of its own"),
        (b"</net>", b"", "not an OpenVINO model"),
        (b"<net", b"<nest", "not an OpenVINO model"),
    ],
)
def test_what_is_not_of_the_kind_that_is_exported_is_refused(
    exported: tuple[bytes, bytes], was: bytes, becomes: bytes, reason: str
):
    assert was in exported[0]
    with pytest.raises(ValueError, match=reason):
        check([exported[0].replace(was, becomes, 1), exported[1]])


def test_weights_that_were_cut_off_are_refused(exported: tuple[bytes, bytes]):
    with pytest.raises(ValueError, match=r"not in its \.bin file"):
        check([exported[0], exported[1][:-1]])


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 100, b"<net>" * 100_000])
def test_what_is_no_xml_is_said_to_be_none(content: bytes):
    with pytest.raises(ValueError, match="not an OpenVINO model"):
        check([content, b""])
