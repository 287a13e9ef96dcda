import numpy as np
import pytest
from byol_edge.evaluate.scorer import FIGURES, Figure, make_scorer


def classes(*counts: int) -> list[str | None]:
    return [name for name, count in zip("abcdef", counts, strict=False) for _ in range(count)]


def apart(names: list[str | None], random: np.random.Generator) -> np.ndarray:
    """Embeddings that tell the classes."""
    rows = [(np.eye(8)["abcdef".index(name)] if name else np.ones(8)) + random.normal(0, 0.05, 8) for name in names]
    return np.array(rows, np.float32)


def test_pytorchs_own_scores_have_no_change_and_others_a_paired_one(random: np.random.Generator):
    names = classes(20, 20, 20)
    of_pytorch = apart(names, random)
    scorer = make_scorer(of_pytorch, names)
    assert scorer is not None
    assert scorer.classes == 3
    assert {name: (score.value.mean, score.change) for name, score in scorer.accuracy.scores.items()} == {
        "knn": (1, None),
        "probe": (1, None),
    }
    same, noise = scorer.score(of_pytorch), scorer.score(random.normal(size=(60, 8)).astype(np.float32))
    for figure in FIGURES:
        unchanged, worse = same.scores[figure.name].change, noise.scores[figure.name].change
        assert unchanged is not None
        assert (unchanged.mean, unchanged.lower, unchanged.upper) == (0, 0, 0)
        assert worse is not None
        assert worse.upper < 0
        assert worse.mean == pytest.approx(noise.scores[figure.name].value.mean - 1)
    assert noise.verification.threshold == scorer.accuracy.verification.threshold


def test_images_of_unknown_class_are_left_out(random: np.random.Generator):
    names = [*classes(10, 10), *[None] * 5]
    scorer = make_scorer(apart(names, random), names)
    assert scorer is not None
    assert scorer.rows.tolist() == list(range(20))


@pytest.mark.parametrize("names", [None, [], [None, None], ["a", "a"], ["a", "b"]])
def test_without_two_classes_and_two_images_of_one_there_is_no_scorer(names: list[str | None] | None):
    assert make_scorer(np.eye(2, dtype=np.float32), names) is None


def test_a_figure_is_a_function(random: np.random.Generator):
    names = classes(5, 5)
    first = Figure("first", "first", lambda vectors, labels: (vectors[:, 0] > 0.5) == (labels == 0))
    scorer = make_scorer(apart(names, random), names, [first])
    assert scorer is not None
    assert scorer.accuracy.scores["first"].value.mean == 1


def test_a_row_that_is_not_a_number_spoils_no_other(random: np.random.Generator):
    names = classes(20, 20)
    vectors = apart(names, random)
    scorer = make_scorer(vectors, names)
    assert scorer is not None
    broken = vectors.copy()
    broken[0] = np.nan
    assert scorer.score(broken).scores["knn"].value.mean >= 39 / 40


def test_json_has_every_figure(random: np.random.Generator):
    names = classes(4, 4)
    scorer = make_scorer(apart(names, random), names)
    assert scorer is not None
    assert list(scorer.accuracy.to_json()) == ["knn", "probe", "verification", "knn_change", "probe_change"]
    assert scorer.accuracy.to_json()["probe"] is None
