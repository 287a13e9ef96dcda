"""The plots of a page, as SVG that takes the page's colors and font."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import matplotlib.figure
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..evaluate.comparison import Comparison
from ..evaluate.layers import Layer
from ..evaluate.plots import plot_layers
from ..evaluate.validate import Validation
from ..runtime.timing import Timing
from ..train.plots import Curve, draw_curve
from .conclusion import FIGURES
from .sources import PYTORCH, name_variant

# Of lines and text; the page puts its own color in its place.
INK = "#010203"
# Legible on white and on black (Okabe and Ito 2008, and the two darkest made lighter).
COLORS = ("#0a83d1", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#8a63d2", "#7a7a7a", "#c0392b", "#2e9e9e")
MARKERS = "osD^vP*X<>"
# Inches: no wider than a phone, where text would be drawn too small.
SIZE = (4.2, 3.2)
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLORS),
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def draw_speed_and_worth(comparison: Comparison) -> str:
    """Encoders by the time that an image takes and by the figure that decides; empty where fewer than two are timed."""
    timed = [each for each in comparison.encoders if each.timing]
    if len(timed) < 2:
        return ""
    with _figure("worth") as (figure, axes):
        for number, each in enumerate(timed):
            assert each.timing is not None
            error = [[each.deciding.mean - each.deciding.lower], [each.deciding.upper - each.deciding.mean]]
            axes.errorbar(each.timing.median, each.deciding.mean, error, label=_short(each.name), **_look(number))
        for each in comparison.encoders:
            if each.timing is None:
                axes.axhline(each.deciding.mean, color=INK, linestyle="--", linewidth=1, label=_short(each.name))
        axes.set(xscale="log", xlabel="ms per image (log scale)", ylabel=f"{FIGURES[comparison.figure]}, 95% interval")
        return _finish(figure, axes)


def draw_speed_and_fidelity(validation: Validation, timings: Mapping[str, Timing]) -> str:
    """Variants by the time that an image takes and by their angle to PyTorch's vectors."""
    with _figure("fidelity") as (figure, axes):
        for number, each in enumerate(validation.variants):
            name = name_variant(each.name, each.engine)
            if name in timings:
                axes.plot(timings[name].median, each.fidelity.angle_mean, label=name, **_look(number))
        if PYTORCH in timings:
            axes.axvline(timings[PYTORCH].median, color=INK, linestyle="--", linewidth=1, label=f"{PYTORCH}, FP32")
        axes.set(xscale="log", xlabel="ms per image (log scale)", ylabel="mean angle to PyTorch, degrees")
        axes.set_ylim(bottom=min(0, -0.05 * axes.get_ylim()[1]))
        return _finish(figure, axes)


def draw_layers(layers: Mapping[str, Sequence[Layer]]) -> str:
    """Signal to noise along the network; wide, since each layer is named."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "layers"}):
        return _to_svg(plot_layers(layers, "Signal to noise"))


def draw_training(curve: Curve, number: int) -> str:
    with _figure(f"curve {number}") as (figure, axes):
        draw_curve(axes, curve)
        axes.set_title("")  # the page's
        return _to_svg(figure)


@contextmanager
def _figure(name: str) -> Iterator[tuple[matplotlib.figure.Figure, Axes]]:
    """An empty figure; `name` keeps apart what several of them define in one page."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = matplotlib.figure.Figure(figsize=SIZE, layout="constrained")
        yield figure, figure.subplots()


def _look(number: int) -> dict[str, Any]:
    return {"marker": MARKERS[number % len(MARKERS)], "color": COLORS[number % len(COLORS)], "linestyle": ""}


def _finish(figure: matplotlib.figure.Figure, axes: Axes) -> str:
    """With the legend below: names beside points would cover each other."""
    count = len(axes.get_legend_handles_labels()[1])
    figure.set_figheight(SIZE[1] + 0.2 * count)
    axes.minorticks_off()
    low, high = axes.get_xlim()
    axes.set_xticks(_ticks(low, high), [f"{each:.3g}" for each in _ticks(low, high)])
    axes.set_xlim(low, high)
    figure.legend(loc="outside lower left", frameon=False, fontsize=9)
    return _to_svg(figure)


def _ticks(low: float, high: float) -> list[float]:
    """Two to seven round numbers between these: 1, 2 and 5 times powers of ten, or coarser or finer steps."""
    for factors in ((1, 2, 5), (1,)):
        steps = [factor * 10.0**power for power in range(-6, 6) for factor in factors]
        inside = [each for each in steps if low <= each <= high]
        if 2 <= len(inside) <= 7:
            return inside
    return [each for each in MaxNLocator(4).tick_values(low, high) if low <= each <= high]


def _short(name: str) -> str:
    """A name that fits under a plot."""
    shown = name if len(name) <= 44 else f"…{name[-43:]}"
    return shown.encode(errors="replace").decode().replace("$", r"\$")


def _to_svg(figure: matplotlib.figure.Figure) -> str:
    content = io.StringIO()
    figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Of its names, those of groups are the same in every plot, and nothing refers to them.
    used = set(re.findall(r'#([^"\)]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", svg)
    # As wide as it was drawn, and no wider than the page. The page names it, too.
    size = r'width="([\d.]+pt)" height="[\d.]+pt"'
    return re.sub(size, r'style="width: \1" role="img"', svg, count=1)
