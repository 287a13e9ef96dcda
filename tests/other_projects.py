"""Checkpoints of other projects as those projects write them: their keys, wrappers and file endings.

Each maker gets the backbone that learned and its moving average, torchvision's ResNet-18 without `fc`, and gives what
that project hands to `torch.save`. The names are those of the projects' sources, and of checkpoints that were made
with them.
"""

from __future__ import annotations

import argparse
import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

State = dict[str, Tensor]
# Positions of a ResNet's children that have tensors, in nn.Sequential(*list(resnet.children())[:-1]).
NUMBERS = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}


@dataclass(frozen=True)
class Layout:
    """`file`: as it is called there. `make`: of the online and the target backbone. `stem`: of resnet18 here."""

    file: str
    make: Callable[[nn.Module, nn.Module], Any]
    stem: str = "standard"
    has_target: bool = True


@lru_cache(maxsize=8)
def resnet18(seed: int, stem: str = "standard") -> nn.Module:
    """A ResNet-18 without `fc`, in eval mode, its norms as after a training. Not to be changed: copy it first.

    `stem`: "standard", or 3×3 without max-pool, "small" with padding 1, "wide" with 2 (solo-learn's for CIFAR).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = torchvision.models.resnet18()
        network.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        if stem != "standard":
            network.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=2 if stem == "wide" else 1, bias=False)
            network.maxpool = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        train_norms(network)
    return network.eval()


def train_norms(network: nn.Module) -> None:
    """Gives each norm statistics and weights that tell it from any other."""
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                assert norm.running_mean is not None and norm.running_var is not None
                norm.running_mean.normal_(0, 0.1)
                norm.running_var.uniform_(0.5, 1.5)
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(0, 0.1)


def named(network: nn.Module, prefix: str) -> State:
    return {f"{prefix}{key}": tensor for key, tensor in network.state_dict().items()}


def numbered(network: nn.Module, prefix: str) -> State:
    """The children by number, as in nn.Sequential(*list(resnet.children())[:-1])."""
    parts = {key: key.split(".", 1) for key in network.state_dict()}
    return {f"{prefix}{NUMBERS[parts[key][0]]}.{parts[key][1]}": tensor for key, tensor in network.state_dict().items()}


def mlp(prefix: str, *names: str, inputs: int = 512, hidden: int = 32, size: int = 16) -> State:
    """A head by the names of its first linear layer, norm and last linear layer."""
    first, norm, last = names or ("0", "1", "3")
    return {
        f"{prefix}{first}.weight": torch.randn(hidden, inputs),
        f"{prefix}{first}.bias": torch.randn(hidden),
        f"{prefix}{norm}.weight": torch.rand(hidden),
        f"{prefix}{norm}.bias": torch.randn(hidden),
        f"{prefix}{norm}.running_mean": torch.randn(hidden),
        f"{prefix}{norm}.running_var": torch.rand(hidden),
        f"{prefix}{norm}.num_batches_tracked": torch.tensor(9),
        f"{prefix}{last}.weight": torch.randn(size, hidden),
        f"{prefix}{last}.bias": torch.randn(size),
    }


def linear(prefix: str, inputs: int = 512, size: int = 10) -> State:
    return {f"{prefix}weight": torch.randn(size, inputs), f"{prefix}bias": torch.randn(size)}


def behind(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


def lightning(state: State, **more: Any) -> dict[str, Any]:
    """What Lightning's trainer writes around a state dict."""
    return {
        "epoch": 1,
        "global_step": 2,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": OrderedDict(state),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1, "completed": 1}}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': None}": {"best_model_path": "/runs/a.ckpt", "kth_value": torch.tensor(1.0)}
        },
        "optimizer_states": [sgd_state(state)],
        "lr_schedulers": [],
        **more,
    }


def sgd_state(state: State) -> dict[str, Any]:
    """An optimizer's momentum: tensors of the same shapes, by number."""
    tensors = [tensor for tensor in state.values() if tensor.is_floating_point()][:8]
    return {
        "state": {number: {"momentum_buffer": torch.zeros_like(tensor)} for number, tensor in enumerate(tensors)},
        "param_groups": [{"lr": 0.1, "momentum": 0.9, "params": list(range(len(tensors)))}],
    }


def lightly_example(online: nn.Module, target: nn.Module) -> Any:
    heads = mlp("projection_head.layers.") | mlp("prediction_head.layers.", inputs=16)
    copies = numbered(target, "backbone_momentum.") | mlp("projection_head_momentum.layers.")
    return lightning(numbered(online, "backbone.") | heads | copies)


def lightly_benchmark(online: nn.Module, target: nn.Module) -> Any:
    heads = mlp("projection_head.layers.") | mlp("prediction_head.layers.", inputs=16)
    copies = named(target, "teacher_backbone.") | mlp("teacher_projection_head.layers.")
    state = named(online, "backbone.") | heads | copies | linear("online_classifier.classification_head.")
    return lightning(state, hparams_name="kwargs", hyper_parameters={"batch_size_per_device": 4, "num_classes": 10})


def solo_learn(online: nn.Module, target: nn.Module, name: str = "backbone") -> Any:
    heads = mlp("projector.") | mlp("predictor.", inputs=16) | linear("classifier.")
    return lightning(
        named(online, f"{name}.") | heads | named(target, f"momentum_{name}.") | mlp("momentum_projector.")
    )


def solo_learn_before(online: nn.Module, target: nn.Module) -> Any:
    return solo_learn(online, target, "encoder")


def _byol_pytorch(online: nn.Module, target: nn.Module) -> State:
    """The same tensors twice. The projector is the one with simplicial embeddings, today's default."""
    with_head = named(online, "net.") | linear("net.fc.")
    embedder = {key: tensor for key, tensor in mlp("projector.0.", "0", "1", "2").items() if ".0.2." not in key}
    head = embedder | mlp("projector.2.", inputs=32)
    copies = behind("target_encoder.", named(target, "net.") | linear("net.fc.") | head)
    return with_head | behind("online_encoder.", with_head | head) | copies | mlp("online_predictor.", inputs=16)


def byol_pytorch_lightning(online: nn.Module, target: nn.Module) -> Any:
    return lightning(behind("learner.", _byol_pytorch(online, target)))


def byol_pytorch_trainer(online: nn.Module, target: nn.Module) -> Any:
    return named(online, "") | linear("fc.", size=1000)


def sthalles(online: nn.Module, target: nn.Module) -> Any:
    head = mlp("projetion.net.")
    state = numbered(online, "encoder.") | head
    return {
        "online_network_state_dict": state,
        "target_network_state_dict": numbered(target, "encoder.") | head,
        "optimizer_state_dict": sgd_state(state),
    }


def yaox12(online: nn.Module, target: nn.Module) -> Any:
    networks = {
        f"{name}_network.": numbered(network, "encoder.") | mlp("projetion.", "l1", "bn1", "l2")
        for name, network in (("online", online), ("target", target))
    }
    state = {key: tensor for name, network in networks.items() for key, tensor in behind(name, network).items()}
    state |= mlp("predictor.predictor.", "l1", "bn1", "l2", inputs=16)
    config = {"model": {"backbone": {"type": "resnet18", "pretrained": False}}}
    scaler = {"loss_scaler0": {"loss_scale": 65536.0, "unskipped": 1}}
    return {"config": config, "epoch": 1, "steps": 2, "model": state, "optimizer": sgd_state(state), "amp": scaler}


def distributed(make: Callable[[nn.Module, nn.Module], Any], key: str) -> Callable[[nn.Module, nn.Module], Any]:
    """The same, trained by several processes."""

    def made(online: nn.Module, target: nn.Module) -> Any:
        content = make(online, target)
        return {**content, key: behind("module.", content[key])}

    return made


def _mm_heads(first: str, norm: str, last: str) -> State:
    return mlp("neck.", first, norm, last) | mlp("head.predictor.", first, norm, last, inputs=16)


def mmselfsup(online: nn.Module, target: nn.Module) -> Any:
    """1.x, and mmpretrain. What mmengine's message hub adds to it, the test does."""
    copies = {"target_net.steps": torch.tensor(2)} | named(target, "target_net.module.0.")
    copies |= mlp("target_net.module.1.", "fc0", "bn0", "fc1")
    state = named(online, "backbone.") | _mm_heads("fc0", "bn0", "fc1") | copies
    meta = {"epoch": 1, "iter": 2, "cfg": "model = dict(type='BYOL')", "seed": 0, "mmengine_version": "0.10.7"}
    return {"meta": meta, "state_dict": state, "message_hub": {}, "optimizer": sgd_state(state), "param_schedulers": []}


def mmselfsup_before(online: nn.Module, target: nn.Module) -> Any:
    """0.x: the online network twice."""
    state = named(online, "online_net.0.") | mlp("online_net.1.", "fc0", "bn0", "fc1")
    state |= named(target, "target_net.0.") | mlp("target_net.1.", "fc0", "bn0", "fc1")
    state |= named(online, "backbone.") | _mm_heads("fc0", "bn0", "fc1")
    return {"meta": {"mmcv_version": "1.3.3", "CLASSES": None}, "state_dict": state, "optimizer": sgd_state(state)}


def openselfsup(online: nn.Module, target: nn.Module) -> Any:
    content = mmselfsup_before(online, target)
    kept = {key: tensor for key, tensor in content["state_dict"].items() if not key.startswith(("neck.", "backbone."))}
    return {**content, "state_dict": named(online, "backbone.") | kept}


def openselfsup_extracted(online: nn.Module, target: nn.Module) -> Any:
    return {"state_dict": OrderedDict(named(online, "")), "author": "OpenSelfSup"}


def lightning_bolts(online: nn.Module, target: nn.Module) -> Any:
    state = named(online, "online_network.encoder.") | mlp("online_network.projector.model.")
    state |= named(target, "target_network.encoder.") | mlp("target_network.projector.model.")
    return lightning(
        state | mlp("predictor.model.", inputs=16),
        hparams_name="kwargs",
        hyper_parameters={"learning_rate": 0.2, "data_dir": PurePosixPath("data"), "max_epochs": 1000},
    )


def stable_pretraining(online: nn.Module, target: nn.Module) -> Any:
    state = {}
    for name, student, teacher in (
        ("backbone", named(online, "student."), named(target, "teacher.")),
        ("projector", mlp("student."), mlp("teacher.")),
    ):
        rates = {f"{rate}ema_coefficient": torch.tensor(0.99) for rate in ("", "base_", "final_")}
        state |= behind(f"{name}.", rates | student | teacher)
    return lightning(state | mlp("predictor.", inputs=16))


def vissl(online: nn.Module, target: nn.Module) -> Any:
    model = {"trunk": named(online, "_feature_blocks."), "heads": linear("0.clf.0.", size=128)}
    return {
        "phase": 0,
        "type": "consolidated",
        "loss": {"name": "simclr_info_nce_loss"},
        "classy_state_dict": {
            "train": True,
            "base_model": {"model": model, "meta": {"trunk": {}, "heads": []}},
            "optimizer": {"optim": {"param_groups": [{"lr": np.float64(0.3), "params": [0, 1]}], "state": {}}},
            "losses": [np.float64(1.5), np.float32(1.25)],
        },
    }


def eman(online: nn.Module, target: nn.Module) -> Any:
    state = named(online, "online_net.backbone.") | mlp("online_net.neck.mlp.")
    state |= named(target, "target_net.backbone.") | mlp("target_net.neck.mlp.") | mlp("predictor.mlp.", inputs=16)
    return {"epoch": 200, "arch": "BYOLEMAN", "state_dict": behind("module.", state), "best_acc1": torch.tensor(55.0)}


def moco(online: nn.Module, target: nn.Module) -> Any:
    """MoCo's, and EMAN's: `fc` is the projector; "q" learns, "k" is its average."""
    queue = {"queue": torch.randn(128, 64), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    encoders = {}
    for name, network in (("encoder_q.", online), ("encoder_k.", target)):
        encoders |= named(network, name) | linear(f"{name}fc.0.", size=512) | linear(f"{name}fc.2.", size=128)
    return {"epoch": 200, "arch": "resnet18", "state_dict": behind("module.", encoders | queue)}


def simsiam(online: nn.Module, target: nn.Module) -> Any:
    state = named(online, "encoder.") | mlp("encoder.fc.") | mlp("predictor.", inputs=16)
    return {"epoch": 100, "arch": "resnet18", "state_dict": behind("module.", state)}


def barlow_twins(online: nn.Module, target: nn.Module) -> Any:
    norm = {"bn.running_mean": torch.zeros(16), "bn.running_var": torch.ones(16)}
    return {"epoch": 9, "model": behind("module.", named(online, "backbone.") | mlp("projector.") | norm)}


def dino(online: nn.Module, target: nn.Module) -> Any:
    head = linear("head.mlp.0.") | {"head.last_layer.weight": torch.randn(32, 10)}
    return {
        "student": behind("module.", named(online, "backbone.") | head),
        "teacher": named(target, "backbone.") | head,
        "epoch": 9,
        "args": argparse.Namespace(arch="resnet18", lr=0.1),
        "dino_loss": {"center": torch.zeros(1, 32)},
    }


def timm_train(online: nn.Module, target: nn.Module) -> Any:
    return {
        "epoch": 9,
        "arch": "resnet18",
        "state_dict": named(online, "") | linear("fc."),
        "state_dict_ema": named(target, "") | linear("fc."),
        "args": argparse.Namespace(model="resnet18", data_dir=PurePosixPath("data")),
        "metric": np.float64(71.5),
    }


def torchvision_reference(online: nn.Module, target: nn.Module) -> Any:
    average = {"n_averaged": torch.tensor(5)} | named(target, "module.") | linear("module.fc.")
    return {"model": named(online, "") | linear("fc."), "model_ema": average, "args": argparse.Namespace(lr=0.1)}


def compiled(online: nn.Module, target: nn.Module) -> Any:
    """torch.compile inside DDP inside a module of one's own."""
    return {"net": named(online, "model.module._orig_mod.backbone.") | linear("model.module._orig_mod.head.")}


def compiled_outside(online: nn.Module, target: nn.Module) -> Any:
    return {"model_state_dict": named(online, "_orig_mod.module.encoder."), "loss": 1.5}


def lightning_hyper_parameters(online: nn.Module, target: nn.Module) -> Any:
    given = {"args": argparse.Namespace(lr=0.1, out=PurePosixPath("out")), "count": np.int64(3)}
    state = named(online, "encoder.") | named(target, "target_encoder.") | linear("projector.")
    return lightning(state, hparams_name="kwargs", hyper_parameters=given)


def halves(online: nn.Module, target: nn.Module) -> Any:
    """float16: what is exported is these, read as float32."""
    return {
        "state_dict": {
            key: each.half() if each.is_floating_point() else each for key, each in named(online, "encoder.").items()
        }
    }


def parameters(online: nn.Module, target: nn.Module) -> Any:
    """nn.Parameter in place of tensors, as from named_parameters(); the buffers beside them."""
    state = named(online, "encoder.")
    learned = {f"encoder.{name}": parameter for name, parameter in copy.deepcopy(online).named_parameters()}
    return state | learned


LAYOUTS = {
    "lightly example": Layout("epoch=9-step=100.ckpt", lightly_example),
    "lightly benchmark": Layout("last.ckpt", lightly_benchmark),
    "solo-learn": Layout("byol-imagenet-ep=99.ckpt", solo_learn),
    "solo-learn, CIFAR": Layout("byol-cifar10-ep=999.ckpt", solo_learn, stem="wide"),
    "solo-learn 1.0.2, CIFAR": Layout("byol-cifar10-ep=999.ckpt", solo_learn_before, stem="wide"),
    "byol-pytorch": Layout("improved-net.pt", _byol_pytorch),
    "byol-pytorch, Lightning": Layout("epoch=0-step=2.ckpt", byol_pytorch_lightning),
    "byol-pytorch, trainer": Layout("checkpoint.0.pt", byol_pytorch_trainer, has_target=False),
    "sthalles": Layout("model.pth", sthalles),
    "yaox12": Layout("resnet18_300.pth.tar", yaox12),
    "yaox12, DDP": Layout("resnet18_300.pth.tar", distributed(yaox12, "model")),
    "mmselfsup 1.x": Layout("epoch_1.pth", mmselfsup),
    "mmselfsup 0.x": Layout("epoch_1.pth", mmselfsup_before),
    "OpenSelfSup": Layout("latest.pth", openselfsup),
    "OpenSelfSup, extracted": Layout("byol_r18.pth", openselfsup_extracted, has_target=False),
    "lightning-bolts": Layout("epoch=0.ckpt", lightning_bolts),
    "stable-pretraining": Layout("last.ckpt", stable_pretraining),
    "VISSL": Layout("model_final_checkpoint_phase99.torch", vissl, has_target=False),
    "EMAN": Layout("byol_eman.pth.tar", eman),
    "MoCo": Layout("checkpoint_0199.pth.tar", moco),
    "SimSiam": Layout("checkpoint_0099.pth.tar", simsiam, has_target=False),
    "Barlow Twins": Layout("checkpoint.pth", barlow_twins, has_target=False),
    "DINO": Layout("checkpoint0099.pth", dino),
    "timm's train.py": Layout("model_best.pth.tar", timm_train),
    "torchvision's reference": Layout("model_9.pth", torchvision_reference),
    "compiled": Layout("net.bin", compiled, has_target=False),
    "compiled outside": Layout("net.pt", compiled_outside, has_target=False),
    "small stem": Layout("last.ckpt", lightly_benchmark, stem="small"),
    "hyper-parameters": Layout("last.ckpt", lightning_hyper_parameters),
    "nn.Parameter": Layout("encoder.pt", parameters, has_target=False),
}
