"""OpenVINO's IR, read without OpenVINO: an .xml file with the layers, and a .bin file with the weights."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .feature_maps import MOST_MAPS
from .model_format import ModelFormat

# Layers that hold graphs of their own, which may run without end. OpenVINO knows a layer in any case of its letters.
NESTED = frozenset({"if", "loop", "tensoriterator"})


def check(parts: Sequence[bytes]) -> int:
    """How many feature maps a model gives beside its embeddings.

    Raises ValueError, with a reason, for what is not an IR, or not of the kind that this project exports: one
    graph of OpenVINO's own layers, without loops and branches, one image tensor in, all weights within the .bin file.
    An IR names no other files: its weights are given to it.
    """
    from xml.parsers import expat

    layers, weights = parts
    seen: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if not seen and name != "net":
            raise ValueError("not an OpenVINO model (no <net> in it)")
        kind = attributes.get("type", "") if name == "layer" else name
        seen.append(kind.lower())
        if seen[-1] in NESTED or (name == "layer" and not attributes.get("version", "").startswith("opset")):
            raise ValueError(f"the layer {kind[:40]!r} is none that byol-edge exports; do not trust this model")
        # Of a Const layer: where its numbers lie.
        if name == "data" and "offset" in attributes:
            first, length = int(attributes["offset"]), int(attributes.get("size", "0"))
            if not 0 <= first <= first + length <= len(weights):
                raise ValueError("weights that are not in its .bin file; do not trust this model")

    def refuse(*_: object) -> None:
        raise ValueError("an XML document with a type of its own; do not trust this model")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(layers, True)
    except expat.ExpatError as error:
        raise ValueError(f"not an OpenVINO model ({error})") from error
    results = seen.count("result")
    if seen.count("parameter") != 1 or not 1 <= results <= 1 + MOST_MAPS:
        raise ValueError("takes something else than one tensor, or gives none, or too many; do not trust this model")
    return results - 1


def read_metadata(content: bytes, key: str) -> str | None:
    """The value of an entry of `rt_info`. Raises ValueError where it is not text."""
    import html  # takes half as long to load as the rest of this package

    found = re.search(rf'<{key} value="([^"]*)"'.encode(), content)
    return html.unescape(found[1].decode()) if found else None


OPENVINO_IR = ModelFormat("xml", (".xml", ".bin"), check, read_metadata)
