"""Weights are rounded such that outputs, not weights, stay near."""

import itertools

import numpy as np
import pytest

from compiler.compress.adaptive import round_adaptively
from compiler.compress.scheme import Linear, PerChannel, PerGroup, PerTensor
from compiler.compress.weights import quantize_weights


def _moments(groups, inputs, rank=None):
    """Return second moments of inputs that depend on one another."""
    rows = np.random.default_rng().normal(size=(groups, 4 * inputs, rank or inputs))
    mixed = rows @ np.random.default_rng().normal(size=(groups, rank or inputs, inputs)) + 0.3
    return (mixed.transpose(0, 2, 1) @ mixed / (4 * inputs)).astype("float32")


def _loss(weights, codes, values, moments, axis=0):
    error = np.moveaxis(weights.grid.decode(codes) - values, axis, 0)
    error = error.reshape(len(moments), -1, moments.shape[-1]).astype("float64")
    return ((error @ moments) * error).sum(-1).reshape(-1)


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize(
    ("shape", "axis", "groups", "granularity"),
    [
        ((6, 5, 3, 3), 0, 1, PerChannel()),
        ((6, 1, 3, 3), 0, 6, PerChannel()),
        ((6, 4, 3), 0, 2, PerTensor()),
        ((150, 7), 1, 1, PerChannel()),
        ((150, 7), 1, 1, PerGroup(32)),
    ],
)
def test_outputs_are_nearer_to_those_in_float(bits, shape, axis, groups, granularity):
    # Of few weights a single draw may have little to gain.
    losses = [_losses(bits, shape, axis, groups, granularity) for _ in range(5)]
    old, new = np.sum(losses, axis=0)
    assert new < 0.9 * old


def _losses(bits, shape, axis, groups, granularity):
    values = np.random.default_rng().normal(size=shape).astype("float32")
    moments = _moments(groups, values.size // shape[axis])
    weights = quantize_weights(values, Linear(bits, granularity=granularity), axis, 1 - axis)
    before = weights.codes.copy()
    codes = round_adaptively(values, before, weights.grid, moments, axis)
    np.testing.assert_array_equal(before, weights.codes)
    linear = weights.grid.linear
    assert (codes.dtype, codes.shape) == (before.dtype, shape)
    assert linear.lowest <= codes.min() <= codes.max() <= linear.highest
    old, new = (_loss(weights, each, values, moments, axis) for each in (before, codes))
    # The square root of what float32 holds of squares.
    assert (new <= old * 1.001).all()
    return old.sum(), new.sum()


def test_inputs_that_are_independent_are_rounded_to_the_nearest():
    values = np.random.default_rng().normal(size=(8, 300)).astype("float32")
    weights = quantize_weights(values, Linear(8, granularity=PerChannel()), 0)
    moments = np.diag(np.random.default_rng().uniform(0.1, 10, 300)).astype("float32")[None]
    wrong = np.zeros_like(weights.codes)
    np.testing.assert_array_equal(
        round_adaptively(values, wrong, weights.grid, moments, 0), weights.grid.encode(values)
    )


def test_a_few_weights_are_rounded_nearly_as_well_as_can_be():
    values = np.random.default_rng().normal(size=(200, 4)).astype("float32")
    weights = quantize_weights(values, Linear(3, granularity=PerChannel()), 0)
    moments = _moments(1, 4)
    every = np.array(list(itertools.product(range(-3, 4), repeat=4)))
    scale = weights.grid.scale
    best = [
        min(np.einsum("ni,ij,nj->n", e, moments[0], e))
        for e in (every[None] * scale[..., None] - values[:, None]).astype("float64")
    ]
    found = _loss(weights, round_adaptively(values, weights.codes, weights.grid, moments, 0), values, moments)
    nearest = _loss(weights, weights.grid.encode(values), values, moments)
    assert np.sum(best) <= found.sum() < np.sum(best) + 0.6 * (nearest.sum() - np.sum(best))


def test_inputs_that_are_always_zero_do_no_harm():
    values = np.random.default_rng().normal(size=(3, 10)).astype("float32")
    weights = quantize_weights(values, Linear(4, granularity=PerChannel()), 0)
    codes = round_adaptively(values, weights.codes, weights.grid, np.zeros((1, 10, 10), "float32"), 0)
    np.testing.assert_array_equal(codes, weights.codes)


def test_an_output_keeps_codes_that_are_better():
    values = np.random.default_rng().normal(size=(5, 6)).astype("float32")
    weights = quantize_weights(values, Linear(8, granularity=PerChannel()), 0)
    moments = _moments(1, 6)
    again = round_adaptively(values, weights.codes, weights.grid, moments, 0)
    np.testing.assert_array_equal(round_adaptively(values, again, weights.grid, moments, 0), again)
