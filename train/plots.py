"""The plots of a run: what the network sees, and how the training went."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.figure
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..models.objective import ObjectiveConfig
from ..runtime.files import whole_file
from ..runtime.preprocessing import Pixels, Preprocessing, prepare
from ..runtime.run import Metrics
from .data import BatchSampler, Item, ViewDataset
from .rendering import Renderer
from .settings import Settings

SHOWN = 12
STYLE: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def draw_views(
    paths: list[Path], settings: Settings, preprocessing: Preprocessing, renderer: Renderer, file: Path
) -> None:
    """A contact sheet of the first batch: each image as the exported encoder will see it, above its two views."""
    views = ViewDataset(paths, settings, renderer)
    images: list[Pixels] = []
    items: list[Item] = []
    for draw in next(iter(BatchSampler(settings.plan, settings.seed, 0))):
        item = views[draw]
        if item.error is None:
            images.append(prepare(paths[draw.index], preprocessing))
            items.append(item)
        if len(items) == SHOWN:
            break
    if not items:
        return
    rendered = renderer.finish(views.collate(items).views, torch.device("cpu"))
    rows = (images, *([*each.float().round().byte().numpy()] for each in rendered))
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(len(rows[0]) + 0.6, 3.3), layout="constrained")
        grid = figure.subplots(3, len(rows[0]), squeeze=False)
        for line, row, title in zip(grid, rows, ("image", "view 1", "view 2"), strict=True):
            for axes, pixels in zip(line, row, strict=True):
                axes.imshow(pixels, interpolation="nearest")
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
            line[0].set_ylabel(title)
        with whole_file(file) as part:
            figure.savefig(part, dpi=120)


@dataclass(frozen=True)
class Curve:
    """How a figure changed, epoch by epoch. `levels`: what to see it beside, by name."""

    title: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]
    levels: dict[str, float]


def find_curves(history: Sequence[Metrics], embedding_size: int, objective: ObjectiveConfig) -> list[Curve]:
    """A curve for each figure that was measured; levels are the network before training, and raw pixels."""
    first = history[0]  # of random weights, or of those that `init` names
    curves = [
        _trace(history, objective.loss_title, lambda each: each.loss),
        _trace(history, f"rank of the embeddings (of {embedding_size})", lambda each: each.rank),
        _trace(history, "kNN accuracy", lambda each: each.knn, {"raw pixels": first.knn_raw}),
        _trace(history, "deviation of the embeddings", lambda each: each.embedding_std),
        *(_trace(history, each.title, partial(_diagnostic, name)) for name, each in objective.diagnostics.items()),
        _trace(history, "learning rate", lambda each: each.learning_rate),
    ]
    return [each for each in curves if each.values]


def _trace(
    history: Sequence[Metrics],
    title: str,
    figure_of: Callable[[Metrics], float | None],
    others: Mapping[str, float | None] | None = None,
) -> Curve:
    """A figure of each epoch that has it; `others`: levels beside that of the network before training."""
    known = {each.epoch: value for each in history[1:] if (value := figure_of(each)) is not None}
    levels = {"before training": figure_of(history[0]), **(others or {})}
    shown = {name: each for name, each in levels.items() if each is not None}
    return Curve(title, tuple(known), tuple(known.values()), shown)


def draw_curves(history: Sequence[Metrics], embedding_size: int, objective: ObjectiveConfig, file: Path) -> None:
    """How an epoch's figures changed; level lines are the network before training, and raw pixels."""
    curves = find_curves(history, embedding_size, objective)
    columns = -(-len(curves) // 2)
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(3.2 * columns, 5), layout="constrained")
        for axes, curve in zip(figure.subplots(2, columns, squeeze=False).flat, curves, strict=False):
            draw_curve(axes, curve)
        for axes in figure.axes[len(curves) :]:
            axes.set_visible(False)
        with whole_file(file) as part:
            figure.savefig(part, dpi=120)


def draw_curve(axes: Axes, curve: Curve) -> None:
    """One curve with its levels; few epochs are points, too."""
    axes.plot(curve.epochs, curve.values, marker="o" if len(curve.epochs) < 25 else None, markersize=3)
    for (name, level), line in zip(curve.levels.items(), ("--", ":"), strict=False):
        axes.axhline(level, color="gray", linestyle=line, linewidth=1, label=name)
    values = [each for each in (*curve.values, *curve.levels.values()) if math.isfinite(each)]
    # Room for the legend above the highest line.
    axes.set(title=curve.title, xlabel="epoch", ylim=(min(0, *values), 1.4 * max(1e-9, *values)))
    axes.set_xlim(0.5, max(curve.epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    if curve.levels:
        axes.legend(frameon=False, loc="upper right", fontsize=8)


def _diagnostic(name: str, metrics: Metrics) -> float | None:
    return metrics.diagnostics.get(name)
