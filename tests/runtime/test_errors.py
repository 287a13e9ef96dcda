import pickle

import pytest
from byol_edge.runtime import (
    BundleError,
    ByolEdgeError,
    EngineError,
    FidelityError,
    ImageError,
    OutputExistsError,
    RunError,
    UsageError,
)


def as_flag(name: str, value: object) -> str:
    return f"--{name.replace('_', '-')}" if value is True else f"--{name.replace('_', '-')} {value}"


def test_an_error_names_arguments_in_python_and_as_whoever_prints_it_spells_them():
    error = UsageError("{batch_size}: more than the {images} images", batch_size=64, images=9)
    assert str(error) == "batch_size=64: more than the images=9 images"
    assert error.describe(as_flag) == "--batch-size 64: more than the --images 9 images"
    assert list(error.arguments.items()) == [("batch_size", 64), ("images", 9)]


def test_a_flag_is_an_argument_that_is_true():
    error = OutputExistsError("{out} exists already; replace it: {overwrite}", out="v.npz", overwrite=True)
    assert str(error) == "out=v.npz exists already; replace it: overwrite=True"
    assert error.describe(as_flag) == "--out v.npz exists already; replace it: --overwrite"


def test_other_braces_are_left_alone():
    assert str(UsageError("{a} and {b}", a=1)) == "a=1 and {b}"
    assert str(ImageError("photos/{x}.jpg: no such file")) == "photos/{x}.jpg: no such file"


@pytest.mark.parametrize(
    "error",
    [
        RunError("{out}: another is at work", out="runs/a"),
        UsageError("{threads}: has to be from 1 to 512", threads=0),
        BundleError("manifest.json: unreadable"),
        ImageError(),
    ],
)
def test_an_error_crosses_processes_whole(error: ByolEdgeError):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.arguments == error.arguments
    assert copy.describe(as_flag) == error.describe(as_flag)
    assert copy.exit_code == error.exit_code


def test_all_errors_are_of_one_tree_and_usage_is_2():
    kinds = (BundleError, EngineError, FidelityError, ImageError, OutputExistsError, RunError, UsageError)
    assert all(issubclass(kind, ByolEdgeError) for kind in kinds)
    assert {kind.__name__ for kind in kinds if kind.exit_code == 2} == {"UsageError", "OutputExistsError"}
    assert {kind.exit_code for kind in kinds} == {1, 2}
