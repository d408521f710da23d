import numpy as np
import pytest

from compiler.compress.blocks import WHOLE, Blocks, finite
from compiler.compress.scheme import PerChannel, PerGroup, PerToken
from compiler.support.errors import InputError


@pytest.mark.parametrize(
    ("blocks", "shape"),
    [
        (WHOLE, ()),
        (Blocks(PerChannel()), (4, 1, 1)),
        (Blocks(PerChannel(), -1), (1, 1, 3)),
        (Blocks(PerGroup(5)), (4, 3, 1)),
        (Blocks(PerGroup(5), 1, 0), (1, 13, 1)),
        (Blocks(PerGroup(2), 0, -1), (4, 1, 2)),
        (Blocks(PerToken()), (4, 13, 1)),
    ],
)
def test_parameters_of_blocks_spread_back_over_them(blocks, shape):
    array = np.random.default_rng(0).standard_normal((4, 13, 3)).astype(np.float32)
    least = blocks.reduce(np.minimum, array)
    assert least.shape == shape
    assert least.dtype == np.float32
    spread = np.broadcast_to(blocks.spread(least, array.shape), array.shape)
    assert (spread <= array).all()
    assert set(np.unique(spread)) == set(least.reshape(-1)) <= set(array.reshape(-1))


def test_the_last_group_may_be_shorter_and_its_mean_is_its_own():
    array = np.array([[1, 3, 10], [5, 7, 20]], np.float32)
    means = Blocks(PerGroup(2)).mean(array)
    assert means.tolist() == [[2, 10], [6, 20]]
    assert Blocks(PerGroup(2)).spread(means, array.shape).tolist() == [[2, 2, 10], [6, 6, 20]]
    assert Blocks(PerGroup(8)).mean(array).tolist() == [[14 / 3], [32 / 3]]
    assert WHOLE.mean(array) == 46 / 6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "expected at least one value to quantize, got an array of shape (0,)"),
        ([[1, np.nan]], "got nan at (0, 1) (1 of 2 values are NaN or too large)"),
        ([np.inf, -np.inf, 0], "got inf at (0,) (2 of 3 values"),
        ([0, 1e39], "got 1e+39 at (1,)"),
    ],
)
def test_values_that_are_no_numbers(values, message):
    with pytest.raises(InputError) as caught:
        finite(np.array(values))
    assert message in str(caught.value)
