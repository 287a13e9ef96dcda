"""DeepMind's BYOL checkpoints as that project writes them, without haiku: parameters by the names of its modules."""

from __future__ import annotations

import pickle
import sys
import types
from collections import namedtuple
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tree = dict[str, dict[str, NDArray[Any]]]

STATE = "online_params target_params online_state target_state opt_state"


@contextmanager
def importable(module: str, **members: Any) -> Iterator[None]:
    """A module that is there while the file is written, and gone when it is read."""
    parts = module.split(".")
    names = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    before = {name: sys.modules.get(name) for name in names}
    sys.modules |= {name: types.ModuleType(name) for name in names}
    for name, member in members.items():
        member.__module__, member.__qualname__ = module, name
        setattr(sys.modules[module], name, member)
    try:
        yield
    finally:
        for name, old in before.items():
            del sys.modules[name]
            if old is not None:
                sys.modules[name] = old


def draw_resnet(
    seed: int, blocks: Sequence[int] = (1, 1, 1, 1), dtype: Any = np.float32, bottleneck: bool = True
) -> tuple[Tree, Tree]:
    """Parameters and state of networks.ResNetTorso with BYOL's heads, drawn."""
    random = np.random.default_rng(seed)
    params: Tree = {}
    state: Tree = {}

    def norm(path: str, *shape: int) -> None:
        params[path] = {
            "scale": random.uniform(0.5, 1.5, shape).astype(dtype),
            "offset": random.normal(0, 0.1, shape).astype(dtype),
        }
        for name, drawn in (("mean", random.normal(0, 0.1, shape)), ("var", random.uniform(0.5, 1.5, shape))):
            average = drawn.astype(dtype)
            state[f"{path}/~/{name}_ema"] = {"average": average, "counter": np.array(9, np.int32), "hidden": average}

    def conv(path: str, side: int, inputs: int, outputs: int) -> None:
        weight = random.standard_normal((side, side, inputs, outputs), np.float32) / np.sqrt(side * side * inputs)
        params[path] = {"w": weight.astype(dtype)}

    root = "res_net50/~"
    conv(f"{root}/initial_conv", 7, 3, 64)
    norm(f"{root}/initial_batchnorm", 1, 1, 1, 64)
    inputs = 64
    for group, count in enumerate(blocks):
        width = 64 * 2**group
        outputs = 4 * width if bottleneck else width
        for block in range(count):
            path = f"{root}/block_group_{group}/~/block_{block}/~"
            sides = (
                ((1, inputs, width), (3, width, width), (1, width, outputs))
                if bottleneck
                else ((3, inputs, width), (3, width, width))
            )
            for number, (side, before, after) in enumerate(sides):
                conv(f"{path}/conv_{number}", side, before, after)
                norm(f"{path}/batchnorm_{number}", 1, 1, 1, after)
            if block == 0:
                conv(f"{path}/shortcut_conv", 1, inputs, outputs)
                norm(f"{path}/shortcut_batchnorm", 1, 1, 1, outputs)
            inputs = outputs
    for head, size in (("projector", inputs), ("predictor", 16)):
        params[f"{head}/linear"] = {
            "w": random.normal(0, 0.1, (size, 32)).astype(dtype),
            "b": random.normal(0, 0.1, 32).astype(dtype),
        }
        norm(f"{head}/batch_norm", 1, 32)
        params[f"{head}/linear_1"] = {"w": random.normal(0, 0.1, (32, 16)).astype(dtype)}
    params["classifier"] = {"w": np.zeros((inputs, 10), dtype), "b": np.zeros(10, dtype)}
    return params, state


class FlatMapping:
    """haiku's own dict, as its older versions pickle it."""

    def __init__(self, mapping: dict[str, Any]) -> None:
        self.mapping = mapping

    def __reduce__(self) -> Any:
        return FlatMapping, (self.mapping,)


def write_checkpoint(
    online: tuple[Tree, Tree], target: tuple[Tree, Tree], flat: bool = False, protocol: int = 2
) -> bytes:
    """byol/utils/checkpointing.py's file. `flat`: with haiku's own kind of dict."""
    wrap = (lambda tree: FlatMapping({key: FlatMapping(each) for key, each in tree.items()})) if flat else dict
    state = namedtuple("_ByolExperimentState", STATE)
    with (
        importable("byol.byol_experiment", _ByolExperimentState=state),
        importable("haiku._src.data_structures", FlatMapping=FlatMapping),
    ):
        trees = [wrap(tree) for tree in (online[0], target[0], online[1], target[1])]
        # The optimizer's momentum looks like a network, and is none.
        momentum = wrap(
            {path: {key: np.zeros_like(each) for key, each in values.items()} for path, values in online[0].items()}
        )
        content = {
            "experiment_state": state(*trees, opt_state=(np.array(3), momentum)),
            "step": 300000,
            "rng": np.zeros(2, np.uint32),
        }
        return pickle.dumps(content, protocol=protocol)
