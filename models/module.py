"""A module of a user's own in a backbone's place: a copy of it, once it is known to give one vector per image."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..runtime.errors import UsageError, brief
from ..runtime.model_file import MOST_DIMENSIONS
from ..runtime.preprocessing import Preprocessing
from .network import InferenceNetwork

# A module is tried on noise, bright and dim, so that an image's vector shows what it takes from the others.
DIMMED = (1, 3, 9)
# Rounding moves a vector by a millionth of its length.
TOLERANCE = 1e-3
# The least square of a vector's length.
LEAST = 1e-12


def name_module(module: nn.Module) -> str:
    """Where its class is found: "torchvision.models.resnet:ResNet"."""
    return f"{type(module).__module__}:{type(module).__qualname__}"


def prepare_module(module: object, preprocessing: Preprocessing) -> nn.Module:
    """A copy of `module` to be exported: on the CPU, in float32, in eval mode. The module itself is left as it is.

    Tried on drawn images: it has to give one float vector for each, `[N, D]` or `[N, D, 1, 1]`, always the same one,
    whatever else is in the batch. Raises UsageError, which says what it does instead, and what to do.
    """
    if not isinstance(module, nn.Module):
        raise UsageError(f"a torch.nn.Module is needed, not a {type(module).__name__}")
    own = _copy(getattr(module, "_orig_mod", module))  # of one that was compiled
    side = preprocessing.image_size
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    drawn = torch.from_numpy(np.stack([noise // dimmed for dimmed in DIMMED]))
    images = InferenceNetwork(nn.Identity(), preprocessing).inputs(drawn)
    name = name_module(own)
    vectors = _run(own, images, name)
    lengths = vectors.square().sum(1)
    if not (lengths.isfinite() & (lengths > LEAST)).all():
        raise UsageError(f"{name} gives vectors of no length, or of an infinite one; look at its weights")
    if _differ(_run(own, images, name), vectors):
        raise UsageError(f"{name} gives an image another vector each time: switch off what it draws at random")
    if _differ(torch.cat([_run(own, image[None], name) for image in images]), vectors):
        raise UsageError(
            f"{name} gives an image another vector when the rest of its batch is another, as batch norm does in "
            "training mode; it has to embed each alone"
        )
    return own


def _copy(module: nn.Module) -> nn.Module:
    name = name_module(module)
    tensors = [*module.parameters(), *module.buffers()]
    if not tensors:
        raise UsageError(f"{name} has no parameters, so it holds nothing to export")
    if any(map(is_lazy, tensors)):
        raise UsageError(f"{name} has parameters without a shape yet; run it once on a batch of images")
    if any(tensor.is_meta for tensor in tensors):
        raise UsageError(f"{name} is on the meta device, without numbers; load its weights first")
    try:
        own = copy.deepcopy(module).cpu().float().eval()
    except Exception as error:  # of whatever it holds
        raise UsageError(f"{name} cannot be copied to the CPU ({brief(error)})") from error
    for parameter in own.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)  # fine-tuning for INT8 moves frozen ones, too
    return own


def _run(module: nn.Module, images: Tensor, name: str) -> Tensor:
    """Its vectors `[N, D]` of images `[N, 3, H, W]`. Raises UsageError where it gives something else."""
    try:
        with torch.no_grad():
            output = module(images.clone())  # which it may change
    except Exception as error:  # the code is the user's
        text = f"{name} does not take images as float32 {list(images.shape)} ({type(error).__name__}: {brief(error)})"
        raise UsageError(text) from error
    if not isinstance(output, Tensor):
        raise UsageError(
            f"{name} gives a {type(output).__name__}; wrap it in a module that returns the embedding alone, a tensor"
        )
    if output.ndim == 4 and output.shape[2:] == (1, 1):
        output = output.flatten(1)
    if output.ndim != 2 or len(output) != len(images) or not 1 <= output.shape[1] <= MOST_DIMENSIONS:
        raise UsageError(
            f"{name} gives {list(output.shape)} for {list(images.shape)}; wrap it in a module that returns one vector "
            f"per image, [N, D], of {MOST_DIMENSIONS} numbers at most"
        )
    if output.dtype != torch.float32:
        raise UsageError(f"{name} gives {output.dtype} for float32 images; it has to give float32")
    if not output.isfinite().all():
        raise UsageError(f"{name} gives numbers that are not finite; look at its weights")
    return output


def _differ(first: Tensor, second: Tensor) -> bool:
    apart = (first - second).norm(dim=1)
    return bool((apart > TOLERANCE * second.norm(dim=1)).any())
