"""Two processes on a CPU, as torchrun would start them, and the work that tests give them.

Fresh processes import it by name, so it stands beside the test modules, which pytest does not put on the path.
"""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import os
import queue
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from byol_edge.models.backbones import build_backbone, embedding_size
from byol_edge.models.network import InferenceNetwork, embed_pixels
from byol_edge.models.objective import Heads, Objective, Views
from byol_edge.models.objectives import find_objective
from byol_edge.runtime import Preprocessing, RunError, UsageError
from byol_edge.train import ranks
from byol_edge.train.optimizer import build_optimizer
from byol_edge.train.together import average_buffers, broadcast_state, distribute, synchronize_norms
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
        self._processes = [
            context.Process(target=take_part, args=(number, port, tasks, self._results), daemon=True)
            for number, tasks in enumerate(self._tasks)
        ]
        for process in self._processes:
            process.start()

    def do(self, work: Work, *arguments: Any) -> list[Any]:
        """What `work` returns in each of them. Raises what is raised there."""
        self.begin(work, *arguments)
        found = dict(self.next_result() for _ in range(2))
        for each in found.values():
            if isinstance(each, Exception):
                raise each
        return [found[number] for number in range(2)]

    def begin(self, work: Work, *arguments: Any) -> None:
        for tasks in self._tasks:
            tasks.put((work, arguments))

    def next_result(self) -> tuple[int, Any]:
        """The number of the process that ends next, and what it returned. Fails at once when none is left."""
        for _ in range(120):
            alive = any(process.is_alive() for process in self._processes)
            with contextlib.suppress(queue.Empty):
                return self._results.get(timeout=1)
            assert alive, "both processes have ended"
        raise AssertionError("no result within 120 seconds")


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


def build(objective: str, backbone: str, dtype: torch.dtype) -> Objective:
    torch.manual_seed(ranks.rank())  # the first one's weights are to be everyone's
    network = build_backbone(backbone, SIDE, "standard")
    config = find_objective(objective)().complete(Heads(64, 32), 20)
    found = config.build(network, embedding_size(network, SIDE), SIDE, None).to(dtype)
    return found.train()


def learn(name: str, backbone: str, dtype: torch.dtype, steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The gradients of the first step and all tensors after the last, on this process's share of drawn images."""
    objective = build(name, backbone, dtype)
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


def norm_of_a_share(norm: nn.Module) -> tuple[Any, Any]:
    norm, images = copy.deepcopy(norm), torch.randn(6, 5, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    if ranks.world_size() > 1:
        synchronize_norms(norm)
    outputs = norm(images[ranks.rank() :: ranks.world_size()])
    return outputs.detach().numpy(), norm.state_dict()["running_var"].numpy().copy()


def embed(count: int) -> tuple[Any, Any]:
    torch.manual_seed(0)
    network = InferenceNetwork(build_backbone("conv4", SIDE, "standard"), Preprocessing(SIDE))
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    return ranks.embed_together(network, pixels), embed_pixels(network, pixels)


def split(batch_size: int, accumulate: int) -> None:
    ranks.check_shares(batch_size, accumulate)


def leave() -> Any:
    if ranks.rank() == 1:
        os._exit(9)
    return ranks.gather("there")
