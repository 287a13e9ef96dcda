"""Which networks a checkpoint may be of, by the name of one of its tensors. A new family is one entry of FAMILIES."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import timm

from .backbones import TORCHVISION, list_torchvision

# Each of these has a twin of the same shapes, which pads or normalizes otherwise: tensors cannot tell them apart.
TWIN = "tf_"


@dataclass(frozen=True)
class Family:
    """Networks of one plan. `marks`: tensors of which one is in each, in the namings that people use.

    `names`: backbones, or patterns of them, the likeliest first.
    """

    marks: tuple[str, ...]
    names: tuple[str, ...]


FAMILIES = (
    Family(
        (
            *("layer1.0.conv1.weight", "4.0.conv1.weight", "2.0.conv1.weight"),
            *("layer3.0.conv1.weight", "6.0.conv1.weight"),
        ),
        (
            *("resnet18", "resnet50", "resnet34", "resnet101", "resnet152", "resnet26", "wide_resnet50_2"),
            *("wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d", "resnext101_32x4d", "resnext101_64x4d"),
            *("resnet200", "resnet18d", "resnet50d", "resnet101d", "seresnet18", "seresnet50", "skresnet18"),
        ),
    ),
    Family(("conv4.weight",), ("conv4",)),
    Family(
        ("conv_stem.weight",),
        (
            *("mobilenetv3_small_*", "mobilenetv3_large_*", "mobilenetv2_*", "mobilenetv4_conv_*", "efficientnet_b?"),
            *("efficientnet_lite?", "tf_efficientnetv2_*", "efficientnetv2_*", "mnasnet_*", "efficientnet_e?"),
            *("lcnet_*", "ghostnet_*", "mobilenetv1_*", "hardcorenas_?", "fbnetc_100"),
        ),
    ),
    Family(("_conv_stem.weight",), ("tf_efficientnet_b?", "tf_efficientnet_lite?")),
    Family(
        ("blocks.0.attn.qkv.weight",),
        (
            "vit_*_patch*_224",
            "vit_*_patch14_dinov2",
            "vit_*_patch14_reg4_dinov2",
            "vit_*_patch*_384",
            "deit*_distilled*",
        ),
    ),
    Family(("stages.0.blocks.0.conv_dw.weight",), ("convnext_*", "convnextv2_*")),
    Family(("s1.b1.conv1.conv.weight",), ("regnetx_*", "regnety_*", "regnetz_*")),
    Family(("stages.0.0.conv_kxk.conv.weight", "stages.0.0.conv_kxk.0.conv.weight"), ("repvgg_*", "mobileone_*")),
    Family(("features.conv0.weight",), ("densenet121", "densenet169", "densenet201", "densenet161")),
    Family(
        ("features.0.0.weight",),
        tuple(f"{TORCHVISION}{name}" for name in ("mobilenet_v?*", "efficientnet_*", "convnext_*", "swin_*")),
    ),
    Family(("features.0.weight",), tuple(f"{TORCHVISION}{name}" for name in ("vgg*", "alexnet"))),
    Family(("stage2.0.branch1.0.weight",), (f"{TORCHVISION}shufflenet_*",)),
    Family(("trunk_output.block1.block1-0.proj.0.weight",), (f"{TORCHVISION}regnet_*",)),
    Family(("encoder.layers.encoder_layer_0.ln_1.weight",), (f"{TORCHVISION}vit_*",)),
)


def list_names(family: Family) -> Iterator[str]:
    """The backbones of a family, in order."""
    known = [*timm.list_models(), *(f"{TORCHVISION}{name}" for name in list_torchvision()), "conv4"]
    seen = set()
    for pattern in family.names:
        for name in known:
            if name not in seen and fnmatchcase(name, pattern):
                seen.add(name)
                yield name


def find_twin(name: str) -> str | None:
    """The network of the same shapes that computes something else, if there is one."""
    twin = name.removeprefix(TWIN) if name.startswith(TWIN) else TWIN + name
    return twin if twin in timm.list_models() else None
