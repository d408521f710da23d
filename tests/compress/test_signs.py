import numpy as np

from compiler.compress.blocks import Blocks
from compiler.compress.scheme import Binary, PerChannel
from compiler.compress.signs import SignGrid, sign_grid


def test_the_scale_is_the_least_squares_one():
    weights = np.random.default_rng(0).standard_normal((6, 4, 3, 3)).astype(np.float32)
    grid = sign_grid(weights, Binary(), Blocks(PerChannel()))
    codes = grid.encode(weights)
    assert codes.dtype == np.int8
    assert set(np.unique(codes)) == {-1, 1}
    assert grid.scale.shape == (6, 1, 1, 1)
    for channel, signs, scale in zip(weights, codes, grid.scale, strict=True):
        best = (channel.astype(np.float64) * signs).sum() / signs.size
        np.testing.assert_allclose(scale.item(), best, rtol=1e-6)
        assert np.abs(grid.decode(codes)).max() <= grid.scale.max()


def test_zeros_are_positive_and_their_scale_is_zero():
    grid = sign_grid(np.zeros((2, 2)), Binary())
    assert grid.encode(np.array([0.0, -0.0, -1e-45, 5])).tolist() == [1, 1, -1, 1]
    assert (grid.decode(grid.encode(np.zeros(3))) == 0).all()


def test_a_product_is_an_xnor():
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((2, 100))
    one = SignGrid(Binary(), np.float32(1))
    ones = (one.encode(a) == one.encode(b)).sum()
    assert 2 * ones - 100 == one.decode(one.encode(a)) @ one.decode(one.encode(b))
