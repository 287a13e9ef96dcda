import sys

import numpy as np
import pytest
from byol_edge.export.golden import synthetic_images
from byol_edge.export.stand_ins import make_stand_ins


@pytest.mark.parametrize("side", [32, 224])
def test_crops_are_of_one_size_no_two_alike_and_the_same_each_time(side: int):
    pytest.importorskip("sklearn")
    images, what = make_stand_ins(12, side)
    assert what == "crops of two photographs"
    assert images.shape == (12, side, side, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 12
    assert min(image.std() for image in images) > 1
    assert np.array_equal(images, make_stand_ins(12, side)[0])


def test_images_are_drawn_where_there_are_no_photographs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    images, what = make_stand_ins(3, 32)
    assert what == "drawn images"
    assert np.array_equal(images, synthetic_images(3, 32))
