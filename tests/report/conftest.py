"""A report on the shared bundle, measured once."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from byol_edge.runtime.timing import time_calls

if TYPE_CHECKING:
    from byol_edge.report.measure import Measured


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("byol_edge.report.measure.time_calls", partial(time_calls, seconds=0.05))


@pytest.fixture(scope="session")
def measured(finished_run: Path, finished_bundle: Path, photos: Path) -> Measured:
    """120 images in three classes, by a run and its bundle. Not to be changed."""
    from byol_edge.report.measure import measure

    return measure([str(finished_run), str(finished_bundle)], photos)
