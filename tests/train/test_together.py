"""Two processes on a CPU: what they learn is what one learns with all their images."""

from __future__ import annotations

import copy
import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from byol_edge.models.backbones import build_backbone, embedding_size
from byol_edge.models.byol import BYOL, BYOLConfig
from byol_edge.models.network import InferenceNetwork, embed_pixels
from byol_edge.models.objective import Views
from byol_edge.runtime import Preprocessing, RunError, UsageError
from byol_edge.train import ranks
from byol_edge.train.handover import _check_images
from byol_edge.train.optimizer import build_optimizer
from byol_edge.train.together import average_buffers, broadcast_state, distribute, synchronize_norms
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

IMAGES, SIDE = 8, 32

# What a process does, given by name, so that a fresh one can import it; it returns what can be pickled.
Work = Callable[..., Any]


class Pair:
    """Two processes that torchrun might have started, waiting for work."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        self._results = context.Queue()
        self._tasks = [context.Queue() for _ in range(2)]
        for number, tasks in enumerate(self._tasks):
            context.Process(target=take_part, args=(number, port, tasks, self._results), daemon=True).start()

    def do(self, work: Work, *arguments: Any) -> list[Any]:
        """What `work` returns in each of them. Raises what is raised there."""
        for tasks in self._tasks:
            tasks.put((work, arguments))
        found = {}
        while len(found) < 2:
            number, found[number] = self._results.get(timeout=120)
        for each in found.values():
            if isinstance(each, Exception):
                raise each
        return [found[number] for number in range(2)]


def take_part(number: int, port: int, tasks: Any, results: Any) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(number), WORLD_SIZE="2", LOCAL_RANK=str(number), LOCAL_WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    try:
        with ranks.joined(torch.device("cpu")):
            while True:
                work, arguments = tasks.get()
                try:
                    results.put((number, work(*arguments)))
                except UsageError as error:
                    results.put((number, error))
    except RunError as error:
        results.put((number, error))


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair()


def build(backbone: str, dtype: torch.dtype) -> BYOL:
    torch.manual_seed(ranks.rank())  # the first one's weights are to be everyone's
    network = build_backbone(backbone, SIDE, "standard")
    return BYOLConfig(0.9, 64, 32).build(network, embedding_size(network, SIDE)).to(dtype).train()


def learn(backbone: str, dtype: torch.dtype, steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The gradients of the first step and all tensors after the last, on this process's share of drawn images."""
    objective = build(backbone, dtype)
    broadcast_state(objective)
    together = distribute(objective)
    optimizer = build_optimizer("adamw", dict(objective.named_parameters()), 1e-3, 1e-4)
    random, first = torch.Generator().manual_seed(1), {}
    for step in range(steps):
        images = torch.randn(2, IMAGES, 3, SIDE, SIDE, generator=random).to(dtype)[
            :, ranks.rank() :: ranks.world_size()
        ]
        together(Views(images[0], images[1])).loss.backward()
        if step == 0:
            learned = {name: each.grad for name, each in objective.named_parameters() if each.grad is not None}
            first = {name: gradient.numpy().copy() for name, gradient in learned.items()}
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(step / steps)
    average_buffers(objective)
    return first, {name: tensor.numpy() for name, tensor in objective.state_dict().items()}


@pytest.mark.parametrize("backbone", ["conv4", "mobilenetv4_conv_small"])
def test_two_learn_what_one_learns_in_fp64(pair: Pair, backbone: str):
    _, alone = learn(backbone, torch.float64, 20)
    for _, tensors in pair.do(learn, backbone, torch.float64, 20):
        assert alone.keys() == tensors.keys()
        for name, tensor in alone.items():
            assert np.abs(tensor - tensors[name]).max() <= 1e-9, name


@pytest.mark.parametrize("backbone", ["conv4", "mobilenetv4_conv_small"])
def test_the_first_gradients_are_equal_in_fp32(pair: Pair, backbone: str):
    alone, _ = learn(backbone, torch.float32, 1)
    (first, _), (second, _) = pair.do(learn, backbone, torch.float32, 1)
    assert alone.keys() == first.keys() == second.keys()
    difference = sum(float(np.square(alone[name] - first[name]).sum()) for name in alone) ** 0.5
    assert difference <= 1e-5 * sum(float(np.square(each).sum()) for each in alone.values()) ** 0.5
    for name in alone:
        np.testing.assert_array_equal(first[name], second[name])


def norm_of_a_share(norm: nn.Module) -> tuple[Any, Any]:
    norm, images = copy.deepcopy(norm), torch.randn(6, 5, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    if ranks.world_size() > 1:
        synchronize_norms(norm)
    outputs = norm(images[ranks.rank() :: ranks.world_size()])
    return outputs.detach().numpy(), norm.state_dict()["running_var"].numpy().copy()


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(5), nn.BatchNorm2d(5, affine=False, momentum=None), BatchNormAct2d(5)],
    ids=["plain", "bare", "with an activation"],
)
def test_a_norm_sees_the_whole_batch(pair: Pair, norm: nn.Module):
    whole, variance = norm_of_a_share(norm)
    shares = pair.do(norm_of_a_share, norm)
    for number, (outputs, its_variance) in enumerate(shares):
        np.testing.assert_allclose(outputs, whole[number::2], atol=1e-5)
        np.testing.assert_allclose(its_variance, variance, rtol=1e-5)


def embed(count: int) -> tuple[Any, Any]:
    torch.manual_seed(0)
    network = InferenceNetwork(build_backbone("conv4", SIDE, "standard"), Preprocessing(SIDE))
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    return ranks.embed_together(network, pixels), embed_pixels(network, pixels)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_embeddings_are_shared_out_and_put_together(pair: Pair, count: int):
    for together, alone in pair.do(embed, count):
        np.testing.assert_allclose(together, alone, atol=1e-6)


def split(batch_size: int, accumulate: int) -> None:
    ranks.check_shares(batch_size, accumulate)


def test_a_batch_has_to_be_shared_evenly(pair: Pair):
    assert pair.do(split, 64, 2) == [None, None]
    with pytest.raises(UsageError, match="cannot share 33 images evenly, two or more each; take 64"):
        pair.do(split, 66, 2)


def leave() -> Any:
    if ranks.rank() == 1:
        os._exit(9)
    return ranks.gather("there")


def test_a_process_that_loses_another_says_so():
    pair = Pair()
    for tasks in pair._tasks:
        tasks.put((leave, ()))
    number, error = pair._results.get(timeout=120)
    assert number == 0
    assert "process 0 has lost the others" in str(error)


def test_other_images_are_named(tmp_path: Path):
    same, other = tmp_path / "same.png", tmp_path / "other.png"
    for each in (same, other):
        each.write_bytes(b"12345")
    _check_images([same, other], [5, 5])
    with pytest.raises(RunError, match=r"other\.png has 5 bytes, and 6 where"):
        _check_images([same, other], [5, 6])
    with pytest.raises(RunError, match=r"gone\.png is not there"):
        _check_images([tmp_path / "gone.png"], [5])
