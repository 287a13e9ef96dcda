import os
from pathlib import Path

import pytest
from byol_edge.runtime.cpus import available_cpus


def limit(monkeypatch: pytest.MonkeyPatch, cpus: int, quota: str | None) -> None:
    def read_text(_: Path) -> str:
        if quota is None:
            raise FileNotFoundError
        return quota

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)), raising=False)
    monkeypatch.setattr(Path, "read_text", read_text)


@pytest.mark.parametrize(
    ("cpus", "quota", "expected"),
    [
        (8, None, 8),
        (8, "max 100000\n", 8),
        (8, "150000 100000\n", 2),
        (8, "20000 100000\n", 1),
        (1, "400000 100000", 1),
    ],
)
def test_affinity_and_container_limit_count(
    monkeypatch: pytest.MonkeyPatch, cpus: int, quota: str | None, expected: int
):
    limit(monkeypatch, cpus, quota)
    assert available_cpus() == expected
