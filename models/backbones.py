"""Backbones: image tensors in, one embedding per image out, randomly initialized."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from typing import Any

import timm
import torch
from timm.layers import BatchNormAct2d
from timm.models.byobnet import MobileOneBlock, RepVggBlock
from timm.models.resnet import ResNet
from torch import Tensor, nn

from ..runtime.errors import UsageError
from .padding import use_same_padding

STEMS = ("auto", "standard", "small")
# Stems that other projects' checkpoints have: solo-learn's, as "small", padded by 2; and DeepMind's, as "standard", it
# and what follows padded as TensorFlow does.
WIDER_STEM, SAME_STEM = "small-padding-2", "same"
# At and below this many pixels a ResNet's own stem (7×7 stride 2, max-pool) leaves too little for what follows.
SMALL_IMAGE = 32

# The tensor that tells a ResNet's stems apart.
SMALL_STEM_KEY = "conv1.weight"

CONV4 = "conv4"
# Before the names of torchvision's own networks. Its ResNets are timm's, and go by their names.
TORCHVISION = "torchvision:"
# These are built otherwise: a second classifier in training, or none that is linear.
OTHERWISE = ("googlenet", "inception", "squeezenet")
CONV4_WIDTHS = (32, 64, 128, 256)


def build_backbone(name: str, image_size: int, stem: str = "standard") -> nn.Module:
    """A backbone by name: float `[N, 3, image_size, image_size]` → embeddings `[N, D]`.

    `name`: "conv4", any model of timm's, or "torchvision:" and a name there. `stem`: "standard", "small" (3×3 stride 1,
    no max-pool; ResNets only), "small-padding-2" or "same": see resolve_stem. Weights are drawn from torch's global
    generator. Raises UsageError, with the nearest names for an unknown one.
    """
    if name == CONV4:
        return conv4()
    if name.startswith(TORCHVISION):
        return _torchvision_model(name)
    backbone = _timm_model(name, image_size)
    for module in backbone.modules():
        # Some networks come with a hundredth, for runs of a million steps: after a short one, what inference uses
        # would still be of the first weights. A tenth is the recipe of record's.
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.1
    _start_gently(backbone)
    if stem == SAME_STEM:
        use_same_padding(backbone)
    elif stem != "standard":
        _use_small_stem(backbone, padding=2 if stem == WIDER_STEM else 1)
    return backbone


def resolve_stem(name: str, image_size: int, stem: str) -> str:
    """The stem of a backbone: "auto" as "small", for ResNets up to 32 px, or "standard". Raises UsageError."""
    _check_name(name)
    if stem not in (*STEMS, WIDER_STEM, SAME_STEM):
        raise UsageError(f"no stem {stem!r}; there are {', '.join(STEMS)}", stem=stem)
    if stem == "standard" or (stem == "auto" and image_size > SMALL_IMAGE):
        return "standard"
    with torch.device("meta"):  # shapes without weights
        fits = name != CONV4 and _has_standard_stem(build_backbone(name, image_size))
    if stem != "auto" and not fits:
        raise UsageError(f"{{stem}}: that is for ResNets with a 7×7 stem; {name} is none", stem=stem)
    if stem in (WIDER_STEM, SAME_STEM):
        return stem
    return "small" if fits else "standard"


def list_torchvision() -> list[str]:
    """torchvision's classifiers that are no ResNets, by its names."""
    import torchvision

    names = torchvision.models.list_models(torchvision.models)
    return [name for name in names if "resne" not in name and not name.startswith(OTHERWISE)]


def find_classifier(name: str) -> str:
    """What the tensors of a backbone's classifier begin with, where its author kept one: "fc"."""
    if name == CONV4:
        return "fc"
    if name.startswith(TORCHVISION):
        with torch.device("meta"):
            return _find_torchvision_classifier(_whole_torchvision_model(name))
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    found = config.classifier if config is not None else None
    return found if isinstance(found, str) else "fc"


def embedding_size(backbone: nn.Module, image_size: int) -> int:
    """D, measured by running the backbone once: timm's `num_features` is not what every network puts out."""
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            output = backbone(torch.zeros(1, 3, image_size, image_size))
    except RuntimeError as error:
        raise UsageError(f"the backbone takes no images of {image_size} px ({str(error).splitlines()[0]})") from error
    backbone.train(training)
    if output.ndim != 2:
        raise UsageError(f"the backbone puts out {list(output.shape)} for one image; one vector per image is needed")
    return output.shape[1]


def conv4() -> nn.Sequential:
    """The smallest edge network: four 3×3 stride-2 convolutions with ReLU, 32-64-128-256, average-pooled.

    0.4 M parameters, embeddings of 256; images of any size.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for number, width in enumerate(CONV4_WIDTHS, start=1):
        convolution = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        layers[f"conv{number}"] = convolution
        layers[f"bn{number}"] = nn.BatchNorm2d(width)
        layers[f"relu{number}"] = nn.ReLU(inplace=True)
        channels = width
    layers["pool"] = GlobalAveragePool()
    return nn.Sequential(layers)


class GlobalAveragePool(nn.Module):
    """`[N, C, H, W]` → `[N, C]`."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3))


def _check_name(name: str) -> None:
    known = [CONV4, *timm.list_models()]
    if name.startswith(TORCHVISION):
        known = [f"{TORCHVISION}{each}" for each in list_torchvision()]
    if name not in known:
        shown = name[:100]
        near = difflib.get_close_matches(shown, known, n=4, cutoff=0.6)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models(), or take resnet18 or conv4"
        raise UsageError(f"no backbone {shown!r}; {hint}", backbone=shown)


def _timm_model(name: str, image_size: int) -> nn.Module:
    _check_name(name)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    # Networks with position embeddings are built for one size of image.
    fixed: dict[str, Any] = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **fixed)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UsageError(f"timm cannot build {name} for {image_size} px images: {error}") from error


def _torchvision_model(name: str) -> nn.Module:
    """One of torchvision's classifiers without its last linear layer; of MobileNetV3, without both."""
    backbone = _whole_torchvision_model(name)
    parent, _, last = _find_torchvision_classifier(backbone).rpartition(".")
    setattr(backbone.get_submodule(parent), last, nn.Identity())
    return backbone


def _whole_torchvision_model(name: str) -> nn.Module:
    import torchvision

    _check_name(name)
    return torchvision.models.get_model(name.removeprefix(TORCHVISION), weights=None)


def _find_torchvision_classifier(network: nn.Module) -> str:
    if type(network).__name__ == "MobileNetV3":
        return "classifier"
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]


def _start_gently(backbone: nn.Module) -> None:
    """First norms of deep, narrow networks, so that what they see before they have learned is still the image.

    BYOL begins by predicting a random network. With batch norm and ReLU after each of many narrow layers, that one
    tells any two views of an image apart (arXiv 1902.08129), and there is little to predict: MobileNetV3-small, after
    24,000 CIFAR-10 images, had a kNN accuracy of 0.155, untrained 0.183. Started as here, after 20,000, 0.275 and
    0.203.

    - A norm before an activation starts with a bias of 1, so that most of what passes is in the linear part.
    - A residual block starts as its skip connection, as timm's ResNets do (arXiv 1706.02677, section 5.1).
    - Of the parallel branches of a RepVGG or MobileOne block one starts alone, the identity where there is one.
    """
    # The innermost first, since a block has the last word on its norms.
    for module in reversed(list(backbone.modules())):
        norms = [each for each in module.modules() if isinstance(each, nn.BatchNorm2d)]
        if isinstance(module, BatchNormAct2d) and not isinstance(module.act, nn.Identity):
            _set_norms(norms, weight=1, bias=1)
        elif isinstance(module, (RepVggBlock, MobileOneBlock)):
            _set_norms(norms[:1], weight=1, bias=1)  # the identity's comes first
            _set_norms(norms[1:], weight=0, bias=0)
        elif getattr(module, "has_skip", False):  # timm's name for a residual block of the EfficientNet family
            _set_norms(norms[-1:], weight=0, bias=0)


def _set_norms(norms: list[nn.BatchNorm2d], weight: float, bias: float) -> None:
    for norm in norms:
        nn.init.constant_(norm.weight, weight)
        nn.init.constant_(norm.bias, bias)


def _has_standard_stem(backbone: nn.Module) -> bool:
    first = getattr(backbone, "conv1", None)
    return isinstance(backbone, ResNet) and isinstance(first, nn.Conv2d) and first.kernel_size == (7, 7)


def _use_small_stem(resnet: nn.Module, padding: int) -> None:
    """3×3 stride 1 and no max-pool, as for CIFAR (SimCLR, arXiv 2002.05709, appendix B.9)."""
    first = resnet.get_submodule("conv1")
    assert isinstance(first, nn.Conv2d)
    small = nn.Conv2d(3, first.out_channels, 3, stride=1, padding=padding, bias=False)
    nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
    resnet.conv1 = small
    resnet.maxpool = nn.Identity()
