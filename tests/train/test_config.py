from pathlib import Path

import pytest
from byol_edge.models.byol import BYOLConfig
from byol_edge.runtime import RunError, UsageError
from byol_edge.train.config import TrainConfig, change_config, read_config
from byol_edge.train.settings import resolve
from byol_edge.train.views import RandomCrop


def test_a_file_sets_the_config_and_views(tmp_path: Path):
    file = tmp_path / "shop.toml"
    file.write_text(
        'recipe = "photographs"\nepochs = 200\nlearning_rate = 1\n[views]\narea = [0.2, 1.0]\n[view_2]\nsolarize = 0\n'
    )
    settings = resolve(read_config(file), 1000)
    assert (settings.plan.epochs, settings.plan.learning_rate) == (200, 1)
    assert [view.geometry for view in settings.views] == [RandomCrop((0.2, 1.0))] * 2
    assert [(view.blur, view.solarize) for view in settings.views] == [(1.0, 0), (0.1, 0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("lerning_rate = 1\n", "no setting 'lerning_rate'; did you mean learning_rate"),
        ("zzz = 1\n", "no setting 'zzz'; there are backbone"),
        ('epochs = "ten"\n', "epochs = 'ten' is not a whole number"),
        ("epochs = 1.5\n", "epochs = 1.5 is not a whole number"),
        ("epochs = true\n", "epochs = True is not a whole number"),
        ("backbone = 3\n", "backbone = 3 is not text in quotes"),
        ("views = 3\n", "views = 3 is not a table"),
        ('views = "blur"\n', "is not a table"),
        ('learning_rate = "x"\n', "is not a number"),
        ("mean = 0.5\n", r"mean = 0.5 is not three numbers, such as \[0.5, 0.5, 0.5\]"),
        ('objective = "byol"\n', "is not a table; its name stands in it"),
        ("lr = 1\n", "no setting 'lr'; did you mean learning_rate"),
        ("[views]\naera = [0.2, 1]\n", "a view has no 'aera'; did you mean area"),
        ("[view_2]\nzzz = 1\n", "a view has no 'zzz'; there are flip"),
        ('[objective]\nname = "simclr"\n', "no objective 'simclr'; there are byol"),
        ('[objective]\nname = ["byol"]\n', r"name = \['byol'\] is not text in quotes"),
        ("[objective]\ntau = 1\n", "no setting 'tau' of the objective byol; there are tau_base"),
        ('[objective]\ntau_base = "x"\n', "tau_base = 'x' is not a number"),
    ],
)
def test_a_file_that_says_nothing_sensible_is_named(tmp_path: Path, content: str, message: str):
    file = tmp_path / "shop.toml"
    file.write_text(content)
    with pytest.raises(UsageError, match=message) as error:
        read_config(file)
    assert "shop.toml" in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(RunError, match=r"none\.toml: cannot be read"):
        read_config(tmp_path / "none.toml")
    for content in (b"epochs = \n", b"\xff", b"a = " + b"[" * 100_000):
        (tmp_path / "broken.toml").write_bytes(content)
        with pytest.raises(RunError, match=r"broken\.toml: not TOML"):
            read_config(tmp_path / "broken.toml")


def test_a_file_sets_the_normalization(tmp_path: Path):
    file = tmp_path / "shop.toml"
    file.write_text("mean = [0.5, 0.4, 0.3]\nstd = [1, 1, 1]\n")
    settings = resolve(read_config(file), 1000)
    assert (settings.mean, settings.std) == ((0.5, 0.4, 0.3), (1, 1, 1))
    assert settings.preprocessing.mean == (0.5, 0.4, 0.3)


def test_a_file_sets_the_objective(tmp_path: Path):
    file = tmp_path / "shop.toml"
    file.write_text('[objective]\nname = "byol"\ntau_base = 0.95\nprojection_size = 64\n')
    assert read_config(file).objective == BYOLConfig(tau_base=0.95, projection_size=64)


def test_what_is_changed_later_goes_before_a_file(tmp_path: Path):
    file = tmp_path / "shop.toml"
    file.write_text("epochs = 7\nseed = 3\n[objective]\ntau_base = 0.95\n")
    config = change_config(read_config(file), {"epochs": 9, "objective": {"projector_hidden": 8}})
    assert config == TrainConfig(epochs=9, seed=3, objective=BYOLConfig(tau_base=0.95, projector_hidden=8))
