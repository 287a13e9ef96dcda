"""The plot of a validation: where along the network each variant departs from FP32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import matplotlib.figure

from ..runtime.files import whole_file
from .layers import RIGHT, Layer


def draw_layers(measured: Mapping[str, Sequence[Layer]], title: str, file: Path) -> None:
    """One line per variant: signal to noise after each layer."""
    with matplotlib.rc_context({"font.size": 9}):
        figure = plot_layers(measured, title)
        with whole_file(file) as part:
            figure.savefig(part, dpi=120)


def plot_layers(measured: Mapping[str, Sequence[Layer]], title: str) -> matplotlib.figure.Figure:
    """The figure of draw_layers.

    Variants that are right after every layer would press the others together; they are named in the title instead.
    """
    lowest = {variant: min(layer.signal_to_noise for layer in layers) for variant, layers in measured.items()}
    right = [
        f"{variant} exact" if level == float("inf") else f"{variant} above {level:.0f} dB"
        for variant, level in lowest.items()
        if level >= RIGHT
    ]
    drawn = {variant: layers for variant, layers in measured.items() if not lowest[variant] >= RIGHT}
    names = list(dict.fromkeys(layer.name for layers in measured.values() for layer in layers))
    figure = matplotlib.figure.Figure(figsize=(2 + 0.17 * max(len(names), 30), 4.5), layout="constrained")
    axes = figure.subplots()
    for variant, layers in drawn.items():
        places = [names.index(layer.name) for layer in layers]
        axes.plot(places, [layer.signal_to_noise for layer in layers], marker="o", markersize=3, label=variant)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set(ylabel="signal to noise after the layer, dB", xlim=(-0.5, len(names) - 0.5))
    heading = ", ".join([title, *right])
    axes.set_title(heading.encode(errors="replace").decode(), loc="left", parse_math=False)
    axes.set_ylim(min(0, axes.get_ylim()[0]), max(40, axes.get_ylim()[1]))
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if drawn:
        figure.legend(loc="outside upper right", ncols=len(drawn), frameon=False)
    return figure
