"""Modules of a user's own: which are taken, and what is said of the others."""

from collections.abc import Callable

import pytest
import torch
from byol_edge.models.module import name_module, prepare_module
from byol_edge.runtime import Preprocessing, UsageError
from torch import Tensor, nn
from torch.nn import functional

PREPROCESSING = Preprocessing(32)


class Own(nn.Module):
    """Pooled features of one convolution, through `rest`, which gets the module and the features `[N, 4, 1, 1]`."""

    def __init__(self, rest: Callable[[nn.Module, Tensor], object] = lambda _, features: features.flatten(1)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.rest = rest

    def forward(self, images: Tensor) -> object:
        return self.rest(self, self.body(images))


class AlwaysTraining(Own):
    def train(self, mode: bool = True) -> nn.Module:
        return super().train(True)


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return Own()


def with_old_weight_norm() -> nn.Module:
    convolution = nn.Conv2d(3, 4, 3)
    with pytest.warns(FutureWarning):
        torch.nn.utils.weight_norm(convolution)
    convolution(torch.zeros(1, 3, 32, 32))
    return convolution


def fail(_: nn.Module, __: Tensor) -> object:
    raise ValueError("no\nluck")


def test_it_is_copied_and_left_as_it_was():
    module = Own().train().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    own = prepare_module(module, PREPROCESSING)
    assert own is not module
    assert (own.training, module.training) == (False, True)
    assert all(each.requires_grad for each in own.parameters())  # fine-tuning for INT8 moves frozen ones, too
    assert not any(each.requires_grad for each in module.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize(
    "module",
    [
        Own(),
        Own(lambda _, features: features),  # [N, 4, 1, 1]
        Own().double(),
        Own().half(),
        Own(lambda own, features: functional.dropout(features.flatten(1), training=own.training)),
        nn.Sequential(Own(), nn.Dropout()),
        nn.Sequential(nn.Hardtanh(inplace=True), Own()),  # changes its input
        nn.DataParallel(Own()),
        torch.compile(Own(), backend="eager"),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_gives_one_vector_per_image_is_taken(module: nn.Module):
    own = prepare_module(module, PREPROCESSING)
    with torch.no_grad():
        assert own(torch.rand(2, 3, 32, 32)).flatten(1).shape == (2, 4)
    assert {each.dtype for each in own.parameters()} == {torch.float32}
    assert not any(name.startswith("_orig_mod") for name in own.state_dict())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: functional.relu, "a torch.nn.Module is needed, not a function"),
        (lambda: Own, "a torch.nn.Module is needed, not a type"),
        (lambda: Own().state_dict(), "a torch.nn.Module is needed, not a OrderedDict"),
        (nn.Flatten, "has no parameters"),
        (lambda: nn.Sequential(Own(), nn.LazyLinear(3)), "parameters without a shape yet; run it once"),
        (on_meta, "on the meta device, without numbers; load its weights"),
        (with_old_weight_norm, "cannot be copied to the CPU"),
        (lambda: Own(fail), r"does not take images as float32 \[3, 3, 32, 32\] \(ValueError: no luck\)"),
        (lambda: nn.Conv2d(1, 4, 3), "does not take images as .* to have 1 channels"),
        (lambda: Own(lambda _, features: (features, features)), "gives a tuple; wrap it"),
        (lambda: Own(lambda _, features: {"x": features}), "gives a dict; wrap it"),
        (lambda: nn.Conv2d(3, 4, 3), r"gives \[3, 4, 30, 30\] for \[3, 3, 32, 32\]; wrap it"),
        (lambda: Own(lambda _, features: features.sum()), r"gives \[\] for"),
        (lambda: Own(lambda _, features: features.reshape(1, -1)), r"gives \[1, 12\] for"),
        (lambda: Own(lambda _, features: features.flatten(1).repeat(1, 20000)), "of 65536 numbers at most"),
        (lambda: Own(lambda _, features: features.flatten(1).double()), "gives torch.float64 for float32 images"),
        (lambda: Own(lambda _, features: features.flatten(1).int()), "gives torch.int32 for float32 images"),
        (lambda: Own(lambda _, features: features.flatten(1) / 0), "numbers that are not finite"),
        (lambda: Own(lambda _, features: features.flatten(1) * 0), "vectors of no length"),
        (lambda: Own(lambda _, features: features.flatten(1) * 1e30), "vectors of no length, or of an infinite one"),
        (lambda: Own(lambda _, features: functional.dropout(features.flatten(1))), "another vector each time"),
        (lambda: Own(lambda _, features: (features - features.mean(0)).flatten(1)), "the rest of its batch is another"),
        (AlwaysTraining, "as batch norm does in training mode"),
    ],
)
def test_what_does_not_is_refused_in_one_line(make: Callable[[], object], reason: str):
    with pytest.raises(UsageError, match=reason) as refused:
        prepare_module(make(), PREPROCESSING)
    assert "\n" not in str(refused.value)


def test_it_is_called_by_where_its_class_is():
    assert name_module(nn.Flatten()) == "torch.nn.modules.flatten:Flatten"
    assert name_module(Own()).endswith("test_module:Own")
