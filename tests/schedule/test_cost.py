"""Operations and bytes are counted by hand here, and read off the loops there."""

import numpy as np
import pytest
from tvm import te, tirx, topi

from compiler.passes.kernels.channels import gather_channels
from compiler.schedule.cost import bytes_of, flops_of
from tests.schedule.kernels import placeholder


def convolution(batch, dtype="float32"):
    """16 channels to 8, 3x3, on 8x8."""
    data, weight = te.placeholder((batch, 16, 8, 8), dtype), te.placeholder((8, 16, 3, 3), dtype)
    return te.create_prim_func([data, weight, topi.nn.conv2d(data, weight, 1, 1, 1)])


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2), ("int8", 1)])
def test_a_convolution(dtype, size):
    kernel = convolution(2, dtype)
    assert flops_of(kernel) == 2 * 2 * 16 * 8 * 8 * 8 * 3 * 3
    assert bytes_of(kernel) == size * (2 * 16 * 8 * 8 + 8 * 16 * 3 * 3 + 2 * 8 * 8 * 8)


def test_a_matrix_product_with_an_epilogue():
    left, right, bias = placeholder("a", 4, 32), placeholder("b", 32, 16), placeholder("c", 16)
    kernel = te.create_prim_func([left, right, bias, topi.nn.relu(topi.matmul(left, right) + bias)])
    assert flops_of(kernel) == 2 * 4 * 32 * 16 + 2 * 4 * 16
    assert bytes_of(kernel) == 4 * (4 * 32 + 32 * 16 + 16 + 4 * 16)


def test_only_the_rows_that_are_read_of_a_table_count():
    table, ids = placeholder("table", 30000, 64), te.placeholder((1, 10), "int64")
    kernel = te.create_prim_func([table, ids, topi.take(table, ids, axis=0, mode="clip")])
    assert flops_of(kernel) == 0
    assert bytes_of(kernel) == 4 * 10 * 64 + 8 * 10 + 4 * 10 * 64


def test_gathers_of_channels_compute_nothing():
    kernel = gather_channels([(1, 2, 5, 7, 16)] * 2, np.array([(0, 3), (1, 20), (1, 21)]))
    assert flops_of(kernel) == 0
    assert bytes_of(kernel) == 4 * 16 * 5 * 7 * 3


def test_symbolic_shapes_are_not_guessed():
    kernel = convolution(tirx.Var("n", "int64"))
    assert (flops_of(kernel), bytes_of(kernel)) == (None, None)
