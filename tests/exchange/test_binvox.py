"""binvox: order of axes, runs, and files that are not whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.arrays import Rejected
from pipeline.exchange.binvox import read_binvox, write_binvox


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 12), share=st.floats(0, 1), seed=st.integers(0, 2**16))
def test_a_grid_comes_back_cell_by_cell(size, share, seed):
    grid = np.random.default_rng(seed).random((size,) * 3) < share
    back, translate, scale = read_binvox(write_binvox(grid))
    np.testing.assert_array_equal(back, grid)
    assert (translate, scale) == ((-0.5, -0.5, -0.5), 1.0)


def test_y_runs_fastest_then_z_then_x():
    grid = np.zeros((2, 2, 2), bool)
    grid[0, 1, 0] = True  # x 0, y 1, z 0: the second cell of the file
    content = write_binvox(grid, (1.0, 2.0, 3.5), 0.25)
    header, runs = content.split(b"data\n")
    assert header == b"#binvox 1\ndim 2 2 2\ntranslate 1 2 3.5\nscale 0.25\n"
    assert runs == bytes([0, 1, 1, 1, 0, 6])
    assert read_binvox(content)[1:] == ((1.0, 2.0, 3.5), 0.25)


def test_a_long_run_is_split_at_255():
    runs = write_binvox(np.ones((8, 8, 8), bool)).split(b"data\n")[1]
    assert runs == bytes([1, 255, 1, 255, 1, 2])


WHOLE = write_binvox(np.eye(4, dtype=bool)[:, :, None] & np.ones(4, bool))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no binvox file"),
        (b"OFF\n3 1 0\n", "no binvox file"),
        (WHOLE[:-1], "does not hold the 64 cells"),
        (WHOLE + b"\x01\x05", "does not hold the 64 cells"),
        (WHOLE.replace(b"dim 4 4 4", b"dim 4 4"), "announces a grid"),
        (WHOLE.replace(b"dim 4 4 4", b"dim 4 four 4"), "cannot be read"),
        (WHOLE.replace(b"dim 4 4 4", b"dim 99999 99999 99999"), "announces a grid"),
        (WHOLE.replace(b"dim 4 4 4\n", b""), "cannot be read"),
    ],
)
def test_a_file_that_is_not_whole_is_rejected(content, words):
    with pytest.raises(Rejected, match=words):
        read_binvox(content)
