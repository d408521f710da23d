import ml_dtypes
import numpy as np
import pytest

from compiler.compress.floats import FloatGrid, float_grid
from compiler.compress.scheme import Float


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_values_are_rounded_as_the_type_rounds_and_never_become_infinite(dtype):
    grid = FloatGrid(Float(np.dtype(dtype).name))
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    codes = grid.encode(values)
    assert codes.dtype == dtype
    np.testing.assert_array_equal(codes, values.astype(dtype))
    assert grid.decode(codes).dtype == np.float32
    assert grid.largest == float(ml_dtypes.finfo(dtype).max)
    extremes = grid.decode(grid.encode(np.array([3.4028e38, -3.4028e38, 1e-45])))
    assert extremes.tolist() == [grid.largest, -grid.largest, 0]


def test_what_is_cut_is_said():
    assert float_grid(np.array([65504.0, -1]), Float()).notes == ()
    assert float_grid(np.array([1e5, -1e6, 1]), Float()).notes == (
        "2 of 3 values are beyond 65504 and are cut to it",
    )
