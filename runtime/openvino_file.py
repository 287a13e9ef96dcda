"""OpenVINO's IR, read without OpenVINO: an .xml file with the layers, and a .bin file with the weights."""

from __future__ import annotations

import re

from .model_format import ModelFormat


def check(content: bytes) -> None:
    """Raises ValueError if this is not the .xml file of an IR. It names no other files: its weights are given to it."""
    if b"<net" not in content:
        raise ValueError("not an OpenVINO model (no <net> in it)")


def read_metadata(content: bytes, key: str) -> str | None:
    """The value of an entry of `rt_info`. Raises ValueError where it is not text."""
    import html  # takes half as long to load as the rest of this package

    found = re.search(rf'<{key} value="([^"]*)"'.encode(), content)
    return html.unescape(found[1].decode()) if found else None


OPENVINO_IR = ModelFormat("xml", (".xml", ".bin"), check, read_metadata)
