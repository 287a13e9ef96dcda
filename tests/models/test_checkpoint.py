from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from byol_edge.models.checkpoint import load_checkpoint, read_projector, read_target
from byol_edge.runtime import RunError
from byol_edge.runtime.run import Run


def test_a_damaged_checkpoint_is_named(tmp_path: Path):
    assert load_checkpoint(Run(tmp_path)) is None
    (tmp_path / "last.pt").write_bytes(b"junk")
    with pytest.raises(RunError, match=r"last\.pt: damaged"):
        load_checkpoint(Run(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": "1"}, {"epoch": 1.0}, {"epoch": -1}, {"epoch": 0}, {"epoch": True}, {"epoch": None},
        {"objective": 3}, {"objective": {"conv1.weight": 3}}, {"objective": {3: torch.zeros(1)}},
        {"optimizer": []}, {"evaluation": {"hits": [1]}}, {"random": 7},
    ],
)  # fmt: skip
def test_a_checkpoint_of_other_types_is_not_of_this_run(run: Path, change: dict[str, Any]):
    state = torch.load(run / "last.pt", weights_only=True)
    assert load_checkpoint(Run(run)) is not None
    for content in ({**state, **change}, {"epoch": 1}, [state], None):
        torch.save(content, run / "last.pt")
        with pytest.raises(RunError, match=r"last\.pt: not of this run"):
            load_checkpoint(Run(run))


def test_the_target_and_the_projector_are_read_from_it(finished_run: Path):
    state = torch.load(finished_run / "last.pt", weights_only=True)["objective"]
    target = safetensors.torch.load(read_target(Run(finished_run)))
    assert torch.equal(target["conv1.weight"], state["target_backbone.conv1.weight"])
    online, moving = (read_projector(Run(finished_run), network) for network in ("online", "target"))
    assert torch.equal(online["3.weight"], state["projector.3.weight"])
    assert torch.equal(moving["3.weight"], state["target_projector.3.weight"])


def test_what_only_a_checkpoint_holds_cannot_be_had_without_it(run: Path):
    (run / "last.pt").unlink()
    with pytest.raises(RunError, match=r"it alone holds what network=target asks for"):
        read_target(Run(run))
    with pytest.raises(RunError, match=r"it alone holds what with_projector=True asks for"):
        read_projector(Run(run), "online")
