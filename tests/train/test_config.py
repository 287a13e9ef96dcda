from pathlib import Path

import pytest
from byol_edge.runtime import UsageError
from byol_edge.train.config import read_config
from byol_edge.train.recipe import TrainConfig, resolve
from byol_edge.train.views import RandomCrop


def test_a_file_sets_dials_and_views(tmp_path: Path):
    file = tmp_path / "shop.toml"
    file.write_text(
        'recipe = "photographs"\nepochs = 200\nlearning_rate = 1\n[views]\narea = [0.2, 1.0]\n[view_2]\nsolarize = 0\n'
    )
    settings = resolve(TrainConfig(**read_config(file)), 1000)
    assert (settings.epochs, settings.learning_rate) == (200, 1)
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
        ("epochs = \n", "not TOML"),
    ],
)
def test_a_file_that_says_nothing_sensible_is_named(tmp_path: Path, content: str, message: str):
    file = tmp_path / "shop.toml"
    file.write_text(content)
    with pytest.raises(UsageError, match=message) as error:
        read_config(file)
    assert "shop.toml" in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(UsageError, match=r"none\.toml: cannot be read"):
        read_config(tmp_path / "none.toml")
