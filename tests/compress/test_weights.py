"""Weights as codes and scales, and as Relax computes them."""

import numpy as np
import pytest
from tvm import relax

from compiler.compress.blocks import Blocks
from compiler.compress.numerics import grid_of_values
from compiler.compress.scheme import Linear, PerChannel, PerTensor
from compiler.compress.weights import quantize_weights
from tests.passes.graphs import graph, run

R_SHAPE = (4, 3, 2, 2)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("granularity", [PerChannel(), PerTensor()])
@pytest.mark.parametrize("bits", [8, 4])
def test_relax_computes_the_values_of_the_codes(axis, granularity, bits):
    values = (
        np.random.default_rng(0).normal(0, [[[[1]]], [[[2]]], [[[3]]], [[[9]]]], R_SHAPE).astype("float32")
    )
    weights = quantize_weights(values, Linear(bits, granularity=granularity), axis)
    assert weights.codes.dtype == np.int8
    assert weights.grid.scale.size == (R_SHAPE[axis] if isinstance(granularity, PerChannel) else 1)
    assert abs(weights.codes).max() == 2 ** (bits - 1) - 1
    largest = weights.grid.scale.max()
    if bits == 8:
        assert abs(weights.values - values).max() <= 1.0001 * largest, "one rounded the other way"

    got = run(graph(lambda emit, x: relax.op.add(x, emit(weights.expr())), x=R_SHAPE), np.zeros_like(values))
    np.testing.assert_array_equal(got, weights.values)


@pytest.mark.parametrize("granularity", [PerChannel(), PerTensor()])
def test_few_bits_cut_off_what_is_rare(granularity):
    """Of normal weights, four bits for the whole range err more than for most of it."""
    values = np.random.default_rng(0).normal(0, 1, (4, 500)).astype("float32")
    linear = Linear(4, granularity=granularity)
    wide = grid_of_values(values, linear, Blocks(granularity))
    whole = ((wide.decode(wide.encode(values)) - values) ** 2).mean()
    assert ((quantize_weights(values, linear, 0).values - values) ** 2).mean() < 0.85 * whole


def test_a_channel_of_zeros_stays_zero():
    values = np.zeros((2, 3), "float32")
    values[0] = [1, -2, 3]
    weights = quantize_weights(values, Linear(4, granularity=PerChannel()), 0)
    np.testing.assert_array_equal(weights.codes[1], 0)
    assert weights.grid.scale[1] == 1


@pytest.mark.parametrize("granularity", [PerChannel(), PerTensor()])
def test_sums_of_kernels_are_right_to_half_a_step(granularity):
    values = np.random.default_rng().normal(size=(6, 5, 3, 3)).astype("float32")
    weights = quantize_weights(values, Linear(8, granularity=granularity), 0)
    scale = np.broadcast_to(weights.grid.scale, values.shape)
    nearest = np.rint(values / scale)
    assert abs(weights.codes - nearest).max() == 1
    assert (abs((weights.codes - values / scale).sum((2, 3))) <= 0.5001).all()
    # Only those that were rounded up are moved down.
    moved = weights.codes != nearest
    assert (np.sign(nearest - values / scale) == np.sign(nearest - weights.codes))[moved].all()


def test_matrices_are_rounded_to_the_nearest():
    values = np.random.default_rng().normal(size=(6, 40)).astype("float32")
    weights = quantize_weights(values, Linear(8, granularity=PerChannel()), 1, 0)
    np.testing.assert_array_equal(weights.codes, np.rint(values / weights.grid.scale))
