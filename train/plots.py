"""The plots of a run: what the network sees, and how the training went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.figure
import torch

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


def draw_curves(history: Sequence[Metrics], embedding_size: int, objective: ObjectiveConfig, file: Path) -> None:
    """How an epoch's figures changed; dashed, the network before training."""
    panels: list[tuple[str, Callable[[Metrics], float | None]]] = [
        (objective.loss_title, lambda each: each.loss),
        (f"rank of the embeddings (of {embedding_size})", lambda each: each.rank),
        ("kNN accuracy", lambda each: each.knn),
        ("deviation of the embeddings", lambda each: each.embedding_std),
        *((each.title, partial(_diagnostic, name)) for name, each in objective.diagnostics.items()),
        ("learning rate", lambda each: each.learning_rate),
    ]
    panels = [(title, figure_of) for title, figure_of in panels if any(figure_of(each) is not None for each in history)]
    columns = -(-len(panels) // 2)
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(3 * columns, 4.6), layout="constrained")
        for axes, (title, figure_of) in zip(figure.subplots(2, columns).flat, panels, strict=False):
            points = [(each.epoch, value) for each in history[1:] if (value := figure_of(each)) is not None]
            axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 25 else None, markersize=3)
            start = figure_of(history[0])  # of random weights, or of those that `init` names
            if start is not None:
                axes.axhline(start, color="gray", linestyle="--", linewidth=1, label="before training")
                axes.legend(frameon=False, loc="lower right")
            axes.set(title=title, xlabel="epoch", ylim=(0, 1.08 * axes.get_ylim()[1]))
            axes.xaxis.get_major_locator().set_params(integer=True)
        for axes in figure.axes[len(panels) :]:
            axes.set_visible(False)
        with whole_file(file) as part:
            figure.savefig(part, dpi=120)


def _diagnostic(name: str, metrics: Metrics) -> float | None:
    return metrics.diagnostics.get(name)
