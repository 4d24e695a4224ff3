import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaderboards.entries.entry import sheet_of, sheet_shape, tiles_of


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]), st.integers(0, 2**32 - 1))
def test_the_tiles_of_a_sheet_are_its_images(n, h, w, c, seed):
    images = np.random.default_rng(seed).integers(0, 256, (n, h, w, c), dtype=np.uint8)
    sheet = sheet_of(images)
    assert sheet.shape == sheet_shape(n, (h, w, c))
    assert np.array_equal(tiles_of(sheet, n, (h, w, c)), images)


def test_a_sheet_is_nearly_square_and_black_where_no_image_is():
    assert sheet_shape(100, (28, 28, 1)) == (280, 280)
    assert sheet_shape(7, (2, 2, 3)) == (6, 6, 3)
    sheet = sheet_of(np.full((7, 2, 2, 1), 255, dtype=np.uint8))
    assert (sheet[4:, 2:] == 0).all()
    assert (sheet == 255).sum() == 7 * 4


def test_tiles_of_a_sheet_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"a sheet of 4 images .* has the shape \(4, 4\), got \(4, 6\)"):
        tiles_of(np.zeros((4, 6), dtype=np.uint8), 4, (2, 2, 1))
