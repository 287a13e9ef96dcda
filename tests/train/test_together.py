"""Two processes on a CPU: what they learn is what one learns with all their images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from byol_edge.runtime import RunError, UsageError
from byol_edge.train.handover import _check_images
from pairs import Pair, embed, learn, leave, norm_of_a_share, split
from timm.layers.norm_act import BatchNormAct2d
from torch import nn


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair()


@pytest.mark.parametrize(
    ("name", "backbone"),
    [("byol", "conv4"), ("byol", "mobilenetv4_conv_small"), ("infonce", "conv4"), ("autoencoder", "conv4")],
)
def test_two_learn_what_one_learns_in_fp64(pair: Pair, name: str, backbone: str):
    _, alone = learn(name, backbone, torch.float64, 20)
    for _, tensors in pair.do(learn, name, backbone, torch.float64, 20):
        assert alone.keys() == tensors.keys()
        for name, tensor in alone.items():
            assert np.abs(tensor - tensors[name]).max() <= 1e-9, name


@pytest.mark.parametrize("backbone", ["conv4", "mobilenetv4_conv_small"])
def test_the_first_gradients_are_equal_in_fp32(pair: Pair, backbone: str):
    alone, _ = learn("byol", backbone, torch.float32, 1)
    (first, _), (second, _) = pair.do(learn, "byol", backbone, torch.float32, 1)
    assert alone.keys() == first.keys() == second.keys()
    difference = sum(float(np.square(alone[name] - first[name]).sum()) for name in alone) ** 0.5
    assert difference <= 1e-5 * sum(float(np.square(each).sum()) for each in alone.values()) ** 0.5
    for name in alone:
        np.testing.assert_array_equal(first[name], second[name])


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


@pytest.mark.parametrize("count", [1, 2, 7])
def test_embeddings_are_shared_out_and_put_together(pair: Pair, count: int):
    for together, alone in pair.do(embed, count):
        np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_batch_has_to_be_shared_evenly(pair: Pair):
    assert pair.do(split, 64, 2) == [None, None]
    with pytest.raises(UsageError, match="cannot share 33 images evenly, two or more each; take 64"):
        pair.do(split, 66, 2)


def test_a_process_that_loses_another_says_so():
    pair = Pair()
    pair.begin(leave)
    number, error = pair.next_result()
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
