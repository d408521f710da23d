import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compiler.compress.blocks import Blocks
from compiler.compress.powers import power_grid
from compiler.compress.scheme import Log2, PerChannel, PerTensor

# Up to the greatest power; the largest float32 is nearer to one beyond.
ARRAYS = hnp.arrays(
    np.float32, hnp.array_shapes(max_dims=2, max_side=9), elements=st.floats(-(2.0**127), 2.0**127, width=32)
)


def levels(grid, log2):
    base = int(grid.exponent)
    positive = [2.0 ** (base + code) for code in range(1, log2.highest + 1)]
    return np.array([-v for v in reversed(positive)] + [0.0] + positive)


@given(ARRAYS, st.integers(2, 5))
@settings(max_examples=300, deadline=None)
def test_every_value_becomes_the_nearest_level(values, bits):
    log2 = Log2(bits, PerTensor())
    grid = power_grid(values, log2, Blocks(PerTensor()))
    codes = grid.encode(values)
    assert codes.dtype == np.int8
    assert np.abs(codes).max() <= log2.highest
    decoded = grid.decode(codes).astype(np.float64)
    possible = levels(grid, log2)
    nearest = np.abs(values.astype(np.float64)[..., None] - possible).min(axis=-1)
    np.testing.assert_array_equal(np.abs(decoded - values), nearest)
    np.testing.assert_array_equal(grid.encode(decoded), codes)


def test_halfway_goes_up_as_incremental_network_quantization_has_it():
    grid = power_grid(np.array([1.0]), Log2(3, PerTensor()))
    # Levels 1, 1/2, 1/4 and 0.
    values = np.array([1, 0.75, 0.74, 0.375, 0.37, 0.125, 0.124, -0.75, -0.124, 100])
    assert grid.decode(grid.encode(values)).tolist() == [1, 1, 0.5, 0.5, 0.25, 0.25, 0, -1, 0, 1]
    for largest in (1.0, 1.49, 1.5, 3.1, 0.01):
        top = math.floor(math.log2(4 * largest / 3))
        assert int(power_grid(np.array([largest]), Log2()).exponent.item()) + Log2().highest == top


def test_a_product_is_a_shift():
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((5, 20)).astype(np.float32)
    grid = power_grid(weights, Log2(), Blocks(PerChannel()))
    codes, x = grid.encode(weights).astype(np.int64), generator.integers(-128, 128, 20)
    sums = np.where(codes == 0, 0, np.sign(codes) * (x << np.abs(codes))).sum(axis=1)
    np.testing.assert_array_equal(
        np.ldexp(sums.astype(np.float64), grid.exponent[:, 0]), grid.decode(codes).astype(np.float64) @ x
    )


def test_channels_of_any_size():
    values = np.array([[0, 0], [1e-45, 1e-44], [3.4e38, 1], [1, -2]], np.float32)
    grid = power_grid(values, Log2(), Blocks(PerChannel()))
    decoded = grid.decode(grid.encode(values))
    assert decoded.tolist() == [[0, 0], [0, 0], [2.0**127, 0], [1, -2]]
    assert (grid.exponent >= -126).all()
