"""All settings of a run, in lines for a person."""

from __future__ import annotations

from ..runtime.text import count
from .dataset import ImageDataset
from .settings import Settings
from .views import View

PLACES = {"workers": "where images are decoded", "device": "on the device"}


def describe(settings: Settings, dataset: ImageDataset) -> list[str]:
    """One subject per line."""
    plan = settings.plan
    held = ""
    if dataset.queries:
        how = "" if dataset.bank else ", each by the rest of them"
        held = f"; {len(dataset.queries.paths)} others, of {dataset.classes} classes, measure kNN{how}"
    if dataset.validation:
        classes = len(set(dataset.validation.labels.tolist()))
        held += f"; {len(dataset.validation.paths)} others, of {classes} classes, help to choose the network"
    parts = f" in {plan.accumulate} parts" if plan.accumulate > 1 else ""
    first, second = (_describe_view(view) for view in settings.views)
    objective = [f"{name} {_show_setting(value)}" for name, value in vars(settings.objective).items()]
    backbone = f"backbone at {settings.backbone_rate:g} of it, " if settings.backbone_rate != 1 else ""
    warming = "epoch" if plan.warmup_epochs == 1 else "epochs"
    norms = ", batch norm statistics kept" if settings.frozen_norms else ""
    return [
        f"{len(dataset.paths)} images{held}",
        f"{settings.backbone} ({settings.stem} stem) at {settings.image_size} px ({settings.fit}), "
        + (f"weights from {settings.init}" if settings.init else "random weights")
        + (f", teacher {settings.teacher}" if settings.teacher else ""),
        f"recipe {settings.recipe}: {count(plan.epochs, 'epoch')} in batches of {plan.batch_size}{parts}, "
        f"{settings.optimizer} at {plan.learning_rate:.2g} after {plan.warmup_epochs:g} {warming} of warm-up, "
        f"{backbone}weight decay {settings.weight_decay:g}{norms}",
        f"objective {settings.objective.name}" + (f": {', '.join(objective)}" if objective else ""),
        f"views: {first}" if first == second else f"view 1: {first}",
        *([] if first == second else [f"view 2: {second}"]),
        f"normalization: mean {_show(settings.mean)}, std {_show(settings.std)}",
        f"seed {settings.seed}, {settings.workers} workers, views made {PLACES[settings.augment]}",
        f"precision {settings.precision}"
        + (", compiled" if settings.compile else "")
        + (", deterministic" if settings.deterministic else ""),
    ]


def _show_setting(value: float | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}"


def _show(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _describe_view(view: View) -> str:
    def show(value: object) -> str:
        return "–".join(f"{each:.2g}" for each in value) if isinstance(value, tuple) else f"{value:g}"

    strengths = " ".join(show(value) for value in vars(view.color_jitter).values())
    chances = [
        *(f"{name} {show(value)}" for name, value in vars(view.geometry).items()),
        f"flip {show(view.flip)}",
        f"jitter {show(view.jitter)} ({strengths})",
        *(f"{name} {show(getattr(view, name))}" for name in ("grayscale", "blur", "solarize")),
    ]
    return ", ".join(chances)
