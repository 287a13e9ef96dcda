"""Progress of long work, through logging like everything else that is reported."""

from __future__ import annotations

import logging
from dataclasses import dataclass

PROGRESS = "byol_edge.progress"
_log = logging.getLogger(PROGRESS)


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of the work called `label`; a record of the logger carries it as `progress`."""

    label: str
    done: int
    total: int
    unit: str = "images"


def report_progress(progress: Progress) -> None:
    """Logs it, at level DEBUG, so that only those who ask for it are told."""
    if _log.isEnabledFor(logging.DEBUG):
        text = f"{progress.label}: {progress.done} of {progress.total} {progress.unit}"
        _log.debug(text, extra={"progress": progress})
