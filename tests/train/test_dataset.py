import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import ImageError
from byol_edge.train.dataset import find_dataset


def test_a_tenth_of_labeled_images_is_held_out_by_the_seed(photos: Path):
    images, again, other = (find_dataset(photos, None, None, seed) for seed in (0, 0, 1))
    assert images.queries is not None
    assert images.bank is not None
    assert (len(images.paths), len(images.bank.paths), len(images.queries.paths)) == (108, 108, 12)
    assert not set(images.paths) & set(images.queries.paths)
    assert again.paths == images.paths
    assert other.paths != images.paths
    names = sorted(folder.name for folder in photos.iterdir())
    assert [names[label] for label in images.queries.labels] == [path.parent.name for path in images.queries.paths]


def test_without_classes_every_image_is_trained_on(photos: Path):
    images = find_dataset(photos / "disc", None, None, 0)
    assert len(images.paths) == 40
    assert images.queries is None


def test_folders_of_a_few_images_are_no_classes(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    # One class per image would make every neighbor wrong.
    for number, path in enumerate(sorted(photos.rglob("*.png"))[:30]):
        (tmp_path / str(number)).mkdir()
        shutil.copy(path, tmp_path / str(number))
    with caplog.at_level(logging.INFO):
        assert find_dataset(tmp_path, None, None, 0).queries is None
    assert f"folders of {tmp_path} hold fewer than 10 images on average: no kNN is measured" in caplog.text


def test_a_folder_of_queries_is_kept_from_training(photos: Path, tmp_path: Path):
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    queries = Path(shutil.copytree(photos / "disc", tmp_path / "eval" / "disc")).parent
    shutil.copytree(photos / "square", queries / "square")
    images = find_dataset(data, None, queries, 0)
    assert images.queries is not None
    assert (len(images.paths), len(images.queries.paths)) == (120, 80)
    assert np.unique(images.queries.labels).tolist() == [0, 1]


def test_queries_inside_the_folder_are_taken_out(photos: Path, tmp_path: Path):
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    (data / "unlabeled").mkdir()
    labels = tmp_path / "labels.csv"
    names = [f"{path.parent.name}/{path.name}" for path in sorted(data.rglob("*.png"))]
    labels.write_text("image,label\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in names))
    shutil.copytree(photos / "disc", data / "held" / "disc")
    shutil.copytree(photos / "square", data / "held" / "square")
    images = find_dataset(data, labels, data / "held", 0)
    assert len(images.paths) == 120


def test_classes_by_a_csv_file(photos: Path, tmp_path: Path):
    labels = tmp_path / "labels.csv"
    rows = [f"disc/{number:02}.png,{'odd' if number % 2 else 'even'},x\n" for number in range(38)]
    labels.write_text("\ufeffimage,label,other\n" + "".join(rows))
    images = find_dataset(photos, labels, None, 0)
    assert images.bank is not None
    assert images.queries is not None
    assert (len(images.paths), len(images.bank.paths), len(images.queries.paths), images.classes) == (117, 35, 3, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n", "has to name the columns image and label"),
        ("image,label\ndisc/00.png,\n", "line 2 has no image or no label"),
        ("image,label\nnowhere.png,x\n", "names none of the images"),
        ("", "has to name the columns"),
    ],
)
def test_a_csv_that_says_nothing_is_named(photos: Path, tmp_path: Path, content: str, message: str):
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(ImageError, match=message):
        find_dataset(photos, tmp_path / "labels.csv", None, 0)
    with pytest.raises(ImageError, match="cannot be read"):
        find_dataset(photos, tmp_path / "none.csv", None, 0)


def test_queries_beside_images_of_unknown_class_are_compared_with_one_another(photos: Path, tmp_path: Path):
    flat, dated = tmp_path / "flat", tmp_path / "dated"
    shutil.copytree(photos / "disc", flat)
    for year in ("2025", "2026"):
        shutil.copytree(photos / "disc", dated / year)
    for root in (flat, dated):
        images = find_dataset(root, None, photos, 0)
        assert images.bank is None
        assert images.queries is not None
        assert (len(images.queries.paths), images.classes) == (120, 3)
    few = tmp_path / "few"
    for number, shape in enumerate(("disc", "square", "stripes")):
        shutil.copytree(photos / shape, few / shape, ignore=lambda _, names, keep=number: sorted(names)[max(1, keep) :])
    with pytest.raises(ImageError, match="4 images of 3 classes are too few to compare with one another"):
        find_dataset(flat, None, few, 0)


def test_queries_that_cannot_be_compared_are_named(photos: Path, tmp_path: Path):
    with pytest.raises(ImageError, match="does not hold one folder per class"):
        find_dataset(photos, None, photos / "disc", 0)
    other = tmp_path / "eval"
    shutil.copytree(photos / "disc", other / "disc")
    shutil.copytree(photos / "disc", other / "cats")
    with pytest.raises(ImageError, match="no training image is of class 'cats'"):
        find_dataset(photos, None, other, 0)


def write_labels(file: Path, photos: Path, shapes: dict[str, int]) -> Path:
    """A CSV file with the classes of the first images of each shape."""
    rows = [f"{shape}/{path.name},{shape}\n" for shape, n in shapes.items() for path in _first(photos / shape, n)]
    file.write_text("image,label\n" + "".join(rows))
    return file


def _first(folder: Path, count: int) -> list[Path]:
    return sorted(folder.iterdir())[:count]


def test_a_handful_of_labels_chooses_and_measures_nothing(photos: Path, tmp_path: Path):
    labels = write_labels(tmp_path / "labels.csv", photos, {"disc": 5, "square": 5})
    images = find_dataset(photos, labels, None, 0)
    assert images.validation is not None
    assert (len(images.paths), images.bank, images.queries) == (110, None, None)
    assert images.validation.paths == _first(photos / "disc", 5) + _first(photos / "square", 5)
    assert images.validation.labels.tolist() == [0] * 5 + [1] * 5
    assert not set(images.validation.paths) & set(images.paths)


def test_a_handful_of_labels_beside_a_folder_that_measures(photos: Path, tmp_path: Path):
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    labels = write_labels(tmp_path / "labels.csv", data, {"disc": 5, "square": 5})
    images = find_dataset(data, labels, photos, 0)
    assert images.validation is not None and images.queries is not None
    assert (len(images.paths), images.bank, len(images.queries.paths), images.classes) == (110, None, 120, 3)


@pytest.mark.parametrize("shapes", [{"disc": 5}, {"disc": 1, "square": 1}, {"disc": 5, "square": 1}])
def test_labels_that_cannot_choose_are_refused(photos: Path, tmp_path: Path, shapes: dict[str, int]):
    labels = write_labels(tmp_path / "labels.csv", photos, shapes)
    with pytest.raises(ImageError, match=r"labels.csv: labels \d of 120 images; label two or more of each of two"):
        find_dataset(photos, labels, None, 0)
