"""What is asked of an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FORMATS = ("onnx", "openvino")
TARGETS = ("cpu-vnni", "cpu-avx2", "arm")


@dataclass(frozen=True)
class ExportConfig:
    """What is asked of an export.

    `network`: "online", the backbone that learned, or "target", its moving average. `target`: the CPU that INT8's
    numbers are chosen for. `calibration`: a folder, whose images calibrate and judge in place of the run's. `finetune`:
    where nothing else keeps INT8 good, fine-tune the network for it. `no_images`: synthetic images in the bundle, none
    of a user's. `with_projector`: projections in place of embeddings. `dimensions`: shorter vectors, by the directions
    that keep most of the calibration images.
    """

    int8: bool = False
    fp16: bool = False
    formats: tuple[str, ...] = FORMATS
    target: str = TARGETS[0]
    network: str = "online"
    calibration: Path | None = None
    finetune: bool = True
    no_images: bool = False
    with_projector: bool = False
    dimensions: int | None = None
