"""What is asked of an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..models.normalization import Channels, check_normalization
from ..runtime.errors import UsageError
from ..runtime.preprocessing import MOST_SIDE
from .formats import FORMATS
from .target import TARGETS, find_target

FORMAT_NAMES = tuple(each.name for each in FORMATS)
NETWORKS = ("online", "target")


@dataclass(frozen=True)
class ExportConfig:
    """What is asked of an export.

    `formats`: of the model files, "onnx" and "openvino". `network`: "online", the backbone that learned, or "target",
    its moving average. `target`: the CPU that INT8's numbers are chosen for, by default this machine's. `calibration`:
    a folder, whose images calibrate and judge in place of the run's. `finetune`: where nothing else keeps INT8 good,
    fine-tune the network for it. `no_images`: synthetic images in the bundle, none of a user's. `with_projector`:
    projections in place of embeddings. `dimensions`: shorter vectors, by the directions that keep most of the
    calibration images. `features`: modules of the backbone, by their names as in `named_modules()`, whose maps are
    outputs, too. `weight`: of the first of two encoders that are fused, 0.5 if it is not given. `backbone`,
    `image_size`, `mean` and `std`: of weights that do not say them (a checkpoint from elsewhere), whose first layer
    takes blue, green, red if `bgr` says so. `sign`: a PEM file with the private key that the bundle is signed with.
    Raises UsageError.
    """

    int8: bool = False
    fp16: bool = False
    formats: tuple[str, ...] = FORMAT_NAMES
    target: str | None = None
    network: str = NETWORKS[0]
    calibration: str | Path | None = None
    finetune: bool = True
    no_images: bool = False
    with_projector: bool = False
    dimensions: int | None = None
    features: tuple[str, ...] = ()
    weight: float | None = None
    backbone: str | None = None
    image_size: int | None = None
    mean: Channels | None = None
    std: Channels | None = None
    bgr: bool = False
    sign: str | Path | None = None

    @property
    def chosen_target(self) -> str:
        return self.target or find_target()

    def __post_init__(self) -> None:
        if not self.formats or not set(self.formats) <= set(FORMAT_NAMES):
            names = ", ".join(FORMAT_NAMES)
            raise UsageError(f"{{formats}}: has to be {names}, or one of these", formats=",".join(self.formats))
        if self.image_size is not None and not 16 <= self.image_size <= MOST_SIDE:
            raise UsageError(f"{{image_size}}: has to be from 16 to {MOST_SIDE}", image_size=self.image_size)
        if self.weight is not None and not 0 < self.weight < 1:
            raise UsageError("{weight}: has to be between 0 and 1", weight=self.weight)
        if len(set(self.features)) < len(self.features) or not all(self.features):
            raise UsageError("{features}: has to be names of modules, each once", features=",".join(self.features))
        check_normalization(self.mean, self.std)
        for name, values in (("target", TARGETS), ("network", NETWORKS)):
            value = getattr(self, name)
            if value is not None and value not in values:
                raise UsageError(f"{{{name}}}: has to be {' or '.join(values)}", **{name: value})
