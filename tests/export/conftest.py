from collections.abc import Iterator
from functools import partial

import pytest
from byol_edge.runtime.timing import time_in_turn


@pytest.fixture(scope="module")
def short_timing() -> Iterator[None]:
    """For modules in which nothing depends on how fast a variant is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("byol_edge.export.bundling.time_in_turn", partial(time_in_turn, seconds=0.05))
        yield
