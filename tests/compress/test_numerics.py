import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compiler.compress.blocks import Blocks
from compiler.compress.numerics import LEAST_SCALE, MOST, grid_of_range, grid_of_values
from compiler.compress.scheme import Linear, PerChannel, PerGroup, PerToken
from compiler.support.errors import InputError

LINEARS = [
    Linear(bits, signed=signed, symmetric=symmetric)
    for bits in (2, 3, 4, 8)
    for signed in (True, False)
    for symmetric in (True, False)
]
LARGEST = float(np.finfo(np.float32).max)
FINITE = st.floats(-LARGEST, LARGEST, width=32)
ARRAYS = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=9), elements=FINITE)


def reference(values, grid):
    """Quantize one value at a time, as ONNX defines QuantizeLinear, with one scale for all."""
    codes = []
    for value in values.reshape(-1):
        with np.errstate(over="ignore"):
            steps = np.float32(value) / np.float32(grid.scale)
        steps = round(float(steps)) if np.isfinite(steps) else int(np.sign(steps)) << 200
        codes.append(min(max(steps + int(grid.zero_point), grid.linear.lowest), grid.linear.highest))
    return np.array(codes).reshape(values.shape)


@given(ARRAYS, st.sampled_from(LINEARS))
@settings(max_examples=300, deadline=None)
def test_codes_and_values_are_those_of_the_definition(values, linear):
    grid = grid_of_values(values, linear)
    codes = grid.encode(values)
    assert codes.dtype == linear.storage
    np.testing.assert_array_equal(codes, reference(values, grid))
    decoded = grid.decode(codes)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(
        decoded, (codes.astype(np.float32) - np.float32(grid.zero_point)) * np.float32(grid.scale)
    )


@given(ARRAYS, st.sampled_from(LINEARS))
@settings(max_examples=300, deadline=None)
def test_any_range_gives_a_usable_grid_and_small_errors(values, linear):
    grid = grid_of_values(values, linear)
    scale, zero = np.float64(grid.scale), int(grid.zero_point)
    assert grid.scale.dtype == np.float32
    assert grid.zero_point.dtype == np.int32
    assert LEAST_SCALE <= scale <= np.finfo(np.float32).max
    assert linear.lowest <= zero <= linear.highest
    assert np.float32(1) / np.float32(scale) > 0
    if linear.symmetric:
        assert zero - linear.lowest == linear.highest - zero
    # Zero is exact, and each value within the range is off by half a step, or a whole one at the range's
    # ends, where the rounded zero point has moved them.
    assert grid.decode(grid.encode(np.zeros(1))) == 0
    lowest, highest = (limit.astype(np.float64) for limit in grid.limits)
    errors = np.abs(grid.decode(grid.encode(values)) - values.astype(np.float64))
    inside = (values >= lowest) & (values <= highest)
    assert (errors[inside] <= scale * (0.5 + 1e-4)).all()
    assert (errors[np.abs(values) <= MOST] <= scale * (1 + 1e-4)).all()
    assert any("beyond" in note for note in grid.notes) == (np.abs(values).max() > MOST)


@given(ARRAYS, st.sampled_from(LINEARS))
@settings(max_examples=100, deadline=None)
def test_what_is_a_value_of_the_grid_stays(values, linear):
    grid = grid_of_values(values, linear)
    codes = grid.encode(values)
    np.testing.assert_array_equal(grid.encode(grid.decode(codes)), codes)


def test_the_scale_and_zero_point_of_known_ranges():
    affine = Linear(8, signed=False, symmetric=False)
    for (low, high), linear, scale, zero in [
        ((0, 255), affine, 1, 0),
        ((-255, 0), affine, 1, 255),
        ((-128, 127), affine, 1, 128),
        ((10, 255), affine, 1, 0),
        ((-255, -10), affine, 1, 255),
        ((-128, 127), Linear(8, symmetric=False), 1, 0),
        ((-1, 127), Linear(8), 1, 0),
        ((-254, 1), Linear(8), 2, 0),
        ((-127, 0), Linear(8, signed=False), 1, 128),
        ((-7, 3), Linear(4), 1, 0),
    ]:
        grid = grid_of_range(low, high, linear)
        assert (float(grid.scale), int(grid.zero_point), grid.notes) == (scale, zero, ())


def test_rounding_is_half_to_even_and_saturates():
    grid = grid_of_range(-128, 127, Linear(8, symmetric=False))
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, 127.5, 1e30, -128.5, -129, -3e38])
    assert grid.encode(values).tolist() == [0, 2, 2, 0, -2, -2, 126, 127, 127, -128, -128, -128]
    tiny = grid_of_range(-1e-10, 1e-10, Linear(8))
    assert tiny.encode(np.array([3e38, -3e38])).tolist() == [127, -127]


@pytest.mark.parametrize("linear", LINEARS)
def test_empty_and_narrow_ranges_have_a_valid_scale_and_a_note(linear):
    zeros = grid_of_values(np.zeros((2, 3)), linear)
    assert float(zeros.scale) == 1
    assert zeros.notes == ("all values are zero; the scale 1 stands for the empty range",)
    assert (zeros.decode(zeros.encode(np.zeros(3))) == 0).all()
    narrow = grid_of_values(np.array([1e-45, 0, -1e-40]), linear)
    assert float(narrow.scale) == LEAST_SCALE
    assert "so close to zero" in narrow.notes[0]
    constant = grid_of_values(np.full(5, 3.25), linear)
    assert not constant.notes
    np.testing.assert_allclose(constant.decode(constant.encode(np.full(5, 3.25))), 3.25, rtol=1e-6)
    some = grid_of_values(
        np.array([[0, 0], [1, 2], [1e-40, 0], [0, 0]]),
        Linear(linear.bits, linear.signed, linear.symmetric, PerChannel()),
        Blocks(PerChannel()),
    )
    assert some.notes[0].startswith("all values of 2 of 4 are zero;")
    assert some.notes[1].startswith("all values of 1 of 4 are so close to zero")


@pytest.mark.parametrize(
    "blocks",
    [Blocks(PerChannel(), 1), Blocks(PerGroup(4), 0, 2), Blocks(PerToken()), Blocks(PerGroup(4), 1, 0)],
)
@pytest.mark.parametrize("linear", [Linear(8), Linear(4, signed=False, symmetric=False)])
def test_each_block_is_quantized_as_if_alone(blocks, linear):
    values = np.random.default_rng(0).standard_normal((6, 3, 10)).astype(np.float32)
    values *= np.geomspace(1e-6, 1e6, values.size, dtype=np.float32).reshape(values.shape)
    grid = grid_of_values(values, linear, blocks)
    codes, decoded = grid.encode(values), grid.decode(grid.encode(values))
    numbers = np.broadcast_to(
        blocks.spread(np.arange(grid.scale.size).reshape(grid.scale.shape), values.shape), values.shape
    )
    for number in range(grid.scale.size):
        alone = grid_of_values(values[numbers == number], linear)
        np.testing.assert_array_equal(codes[numbers == number], alone.encode(values[numbers == number]))
        np.testing.assert_array_equal(decoded[numbers == number], alone.decode(codes[numbers == number]))


def test_float64_reference_of_the_whole_way():
    values = np.random.default_rng(1).standard_normal((64, 32)) * 3
    grid = grid_of_values(values, Linear(8, granularity=PerChannel()), Blocks(PerChannel()))
    scale = np.abs(values).max(axis=1, keepdims=True) / 127
    expected = np.clip(np.rint(values / scale), -127, 127)
    codes = grid.encode(values)
    # float32 may round a value the other way that lies halfway to within its precision.
    assert (np.abs(codes - expected) <= (np.abs(values / scale % 1 - 0.5) < 1e-4)).all()


def test_ranges_that_are_none():
    for low, high in ((np.nan, 1), (0, np.inf), (2, 1)):
        with pytest.raises(InputError, match="expected a finite range from low to high"):
            grid_of_range(low, high, Linear())
    with pytest.raises(InputError, match="expected finite values"):
        grid_of_range(0, 1, Linear()).encode(np.array([np.nan]))
