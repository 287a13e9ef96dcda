import dataclasses
import json
from typing import Any

import pytest
from byol_edge.models.byol import BYOLConfig
from byol_edge.models.infonce import InfoNCEConfig
from byol_edge.runtime import ImageError, UsageError
from byol_edge.train.config import TrainConfig
from byol_edge.train.optimizer import RATES
from byol_edge.train.settings import compute_batch_size, find_changes, resolve
from byol_edge.train.views import RandomCrop


@pytest.mark.parametrize(
    ("images", "epochs", "expected"),
    [
        (5, 100, 16),
        (320, 100, 16),
        (640, 100, 32),
        (3068, 3, 64),
        (3068, 100, 64),
        (5000, 200, 128),
        (50_000, 10, 64),
        (50_000, 200, 256),
        (10**6, 100, 256),
    ],
)
def test_the_batch_leaves_steps_enough_in_an_epoch_and_in_all(images: int, epochs: int, expected: int):
    assert compute_batch_size(images, epochs) == expected


def test_every_setting_can_be_given():
    given = {
        "recipe": "textures", "optimizer": "sgd", "learning_rate": 0.3, "weight_decay": 0.01, "warmup_epochs": 2.5,
        "accumulate": 2, "batch_size": 8, "fit": "pad", "augment": "device", "objective": BYOLConfig(0.9, 64, 32),
    }  # fmt: skip
    settings = resolve(TrainConfig(**given, views={"blur": 0.1}, view_2={"blur": 0.7, "area": (0.5, 1)}), 100)
    found = {**vars(settings), **vars(settings.plan)}
    assert {name: found[name] for name in given} == given
    assert [view.blur for view in settings.views] == [0.1, 0.7]
    assert [view.geometry for view in settings.views] == [RandomCrop((0.2, 1.0)), RandomCrop((0.5, 1))]


def test_another_optimizer_brings_rates_of_its_own():
    adamw, lars = (resolve(TrainConfig(optimizer=name, batch_size=256), 1000) for name in ("adamw", "lars"))
    assert lars.plan.learning_rate > 100 * adamw.plan.learning_rate
    assert lars.weight_decay < adamw.weight_decay


def test_the_rate_follows_the_batch_unless_it_is_given():
    base = RATES["adamw"].learning_rate
    assert resolve(TrainConfig(image_size=32, batch_size=256), 1000).plan.learning_rate == pytest.approx(base)
    assert resolve(TrainConfig(image_size=32, batch_size=64), 1000).plan.learning_rate == pytest.approx(base / 2)
    assert resolve(TrainConfig(image_size=32, batch_size=64, learning_rate=0.3), 1000).plan.learning_rate == 0.3


def test_warm_up_is_ten_epochs_or_a_tenth_of_a_short_run():
    assert resolve(TrainConfig(epochs=300), 1000).plan.warmup_epochs == 10
    assert resolve(TrainConfig(epochs=3), 1000).plan.warmup_epochs == pytest.approx(0.3)


def test_fewer_images_than_a_batch_is_one_line_with_what_to_do():
    with pytest.raises(ImageError, match="20 images, fewer than a batch of 64: take batch_size=20 or smaller"):
        resolve(TrainConfig(batch_size=64), 20)
    with pytest.raises(ImageError, match="3 images, fewer than a batch of 16: training needs more"):
        resolve(TrainConfig(), 3)
    contrast = TrainConfig(batch_size=32, objective=InfoNCEConfig())  # which takes 16: 10 would be refused in turn
    with pytest.raises(ImageError, match="10 images, fewer than a batch of 32: training needs more"):
        resolve(contrast, 10)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TrainConfig(batch_size=1), "batch_size=1: at least 2"),
        (TrainConfig(epochs=0), "epochs=0: at least 1"),
        (TrainConfig(image_size=8), "image_size=8: at least 16"),
        (TrainConfig(seed=-1), "seed=-1"),
        (TrainConfig(workers=-1), "workers=-1"),
        (TrainConfig(learning_rate=float("nan")), "learning_rate=nan"),
        (TrainConfig(recipe="photo"), "no recipe 'photo'; there are photographs"),
        (TrainConfig(optimizer="adam"), "no optimizer 'adam'; there are adamw"),
        (TrainConfig(augment="gpu"), "augment=gpu: has to be workers or device"),
        (TrainConfig(fit="stretch"), "no fit 'stretch'; there are crop"),
        (TrainConfig(batch_size=16, accumulate=3), "accumulate=3: does not divide a batch of 16"),
        (TrainConfig(batch_size=16, accumulate=16), "accumulate=16: at most 8"),
        (TrainConfig(objective=BYOLConfig(tau_base=1.5)), "tau_base=1.5: at most 1"),
        (TrainConfig(batch_size=8, objective=InfoNCEConfig()), "batch_size=8: infonce compares .* take at least 16"),
        (TrainConfig(batch_size=32, accumulate=4, objective=InfoNCEConfig()), "accumulate=4: at most 2"),
        (TrainConfig(objective=InfoNCEConfig(temperature=0)), "temperature=0: has to be from"),
        (TrainConfig(objective=InfoNCEConfig(tau_base=-1)), "tau_base=-1: at least 0"),
        (TrainConfig(warmup_epochs=-1), "warmup_epochs=-1: at least 0"),
        (TrainConfig(views={"brightnes": 1}), "a view has no 'brightnes'"),
        (TrainConfig(views={"area": (0.1, float("inf"))}), "needs two numbers"),
        (TrainConfig(mean=(0.5,)), "mean=.*: has to be three numbers, of red"),
        (TrainConfig(mean=(0.5, 0.5, float("nan"))), "mean=.*: has to be three numbers"),
        (TrainConfig(std=(0.5, 0.5, 0)), "std=.*: has to be three numbers above 0"),
        (TrainConfig(std=(0.5, 0.5, float("inf"))), "std=.*: has to be three numbers above 0"),
    ],
)
def test_values_out_of_range_are_refused(config: TrainConfig, message: str):
    with pytest.raises(UsageError, match=message):
        resolve(config, 100)


def test_settings_can_be_written_down():
    text = json.dumps(resolve(TrainConfig(image_size=32, recipe="glyphs"), 1000).to_json())
    assert json.loads(text)["views"][0]["geometry"]["kind"] == "RandomAffine"


@pytest.mark.parametrize(
    ("config", "stem"),
    [
        (TrainConfig("resnet18", 32), "small"),
        (TrainConfig("resnet18", 64), "standard"),
        (TrainConfig("resnet18", 32, init="timm:resnet18"), "standard"),
        (TrainConfig("resnet18", 64, stem="small"), "small"),
        (TrainConfig("conv4", 32), "standard"),
    ],
)
def test_settings_are_complete_with_the_stem(config: TrainConfig, stem: str):
    assert resolve(config, 1000).stem == stem


def test_what_changed_is_named_wherever_it_stands():
    before = resolve(TrainConfig("conv4", 32, batch_size=16), 1000)
    now = resolve(
        TrainConfig(
            "conv4",
            32,
            batch_size=16,
            epochs=9,
            objective=BYOLConfig(projection_size=8),
            view_2={"blur": 0.5},
            workers=9,
        ),
        1000,
    )
    changes = "; ".join(find_changes(before.to_json(), now))
    for change in ("projection_size (was 256, now 8)", "blur (was 0.0, now 0.5)"):
        assert change in changes
    assert not {"workers", "epochs"} & set(changes.split())
    assert find_changes(before.to_json(), before) == []
    contrast = dataclasses.replace(before, objective=InfoNCEConfig())
    assert find_changes(before.to_json(), contrast) == ["objective (was byol, now infonce)"]


def test_a_setting_that_a_run_does_not_know_yet_counts_as_its_default():
    settings = resolve(TrainConfig("conv4", 32), 1000)
    before: dict[str, Any] = settings.to_json()
    del before["views"][0]["solarize"]  # of the first view: 0, which is its default
    before["a setting of a later version"] = 3
    assert find_changes(before, settings) == []
    solarized = dataclasses.replace(settings.views[0], solarize=0.5)
    other = dataclasses.replace(settings, views=(solarized, settings.views[1]))
    assert find_changes(before, other) == ["solarize (was 0.0, now 0.5)"]
