"""What decoding an encoder's vectors came to: figures, the sentence, and how they lie on disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..runtime.files import FolderKind
from ..runtime.interval import Interval

FIGURES, DECODER = "decoded.json", "decoder.safetensors"
RECONSTRUCTIONS, STEPS, MEANS = "reconstructions.png", "steps.png", "means.png"
DECODED = FolderKind("decoding", FIGURES, (FIGURES, DECODER, RECONSTRUCTIONS, STEPS, MEANS))
FORMAT_VERSION = 1
# What the table calls what is no encoder's.
UNTRAINED, CONSTANT = "untrained encoder", "best constant image"


@dataclass(frozen=True)
class Row:
    """What a decoder made of held-out images' vectors, `numbers` in each; of the best constant image, these are 0.

    `psnr` (dB), `ssim` and `knn` (5-NN accuracy, None without classes): means over the images. `gain`: in PSNR over the
    best constant image, paired. `explained`: the share of the pixels' variance about that image which is decoded; below
    0 where what is decoded is further off.
    """

    name: str
    numbers: int
    psnr: Interval
    gain: Interval
    ssim: Interval
    knn: Interval | None
    explained: float


@dataclass(frozen=True)
class Decoding:
    """`model` and `engine`: the `Encoder.id` and `Encoder.engine` of `source`, whose row is the first one.

    Decoders saw `images` images, `epochs` times, at `side` pixels, and were measured on `held_out` others. `knn`: 5-NN
    accuracy of these themselves, None without classes. `lead`: the PSNR of the first row over the untrained encoder's,
    paired, None where there is none. `unreadable`: one message per image that was left out.
    """

    source: str
    model: str
    engine: str
    data: str
    side: int
    images: int
    held_out: int
    classes: int
    epochs: int
    seed: int
    rows: tuple[Row, ...]
    knn: Interval | None
    lead: Interval | None
    unreadable: tuple[str, ...]

    @property
    def conclusion(self) -> str:
        """What the figures come to, in a few sentences."""
        first = self.rows[0]
        gain = _span(first.gain)
        if first.gain.lower <= 0:
            told = (
                f"{gain} to the best constant image, over {self.held_out} images: no sure sign that this decoder reads "
                "anything of them from the vectors."
            )
        else:
            told = (
                f"{gain} above the best constant image: the vectors of {first.name} give away "
                f"{first.explained:.0%} of what distinguishes one image's pixels from another's."
            )
        if first.knn and self.knn:
            own = f"{self.knn.mean:.0%} of the images themselves"
            told += f" 5-NN puts {first.knn.mean:.0%} of what comes back into the right class, and {own}."
        if self.lead:
            told += f" {_compare_untrained(self.lead)}"
        return told + " A stronger decoder may read more."

    def to_json(self) -> dict[str, Any]:
        return {"format_version": FORMAT_VERSION, **asdict(self), "conclusion": self.conclusion}


def _span(value: Interval) -> str:
    return f"{value.mean:.1f} dB (95% interval {value.lower:.1f} to {value.upper:.1f})"


def _compare_untrained(lead: Interval) -> str:
    """How the first row compares with an encoder that learned nothing."""
    if lead.lower <= 0 <= lead.upper:
        return "An untrained encoder's vectors give away as much."
    more = "less" if lead.mean > 0 else "more"
    return f"An untrained encoder's vectors give away {more}, by {abs(lead.mean):.1f} dB."
