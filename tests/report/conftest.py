"""A report on the shared bundle, measured once."""

from functools import partial
from pathlib import Path

import pytest
from byol_edge.report import measure as measuring
from byol_edge.report.measure import Measured, measure
from byol_edge.runtime.timing import time_calls


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measuring, "time_calls", partial(time_calls, seconds=0.05))


@pytest.fixture(scope="session")
def measured(finished_run: Path, finished_bundle: Path, photos: Path) -> Measured:
    """120 images in three classes, by a run and its bundle. Not to be changed."""
    return measure([str(finished_run), str(finished_bundle)], photos)
