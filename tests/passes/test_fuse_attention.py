"""Attention becomes one kernel where its shapes allow it."""

import numpy as np
import pytest
from tvm import relax, tirx

from compiler.passes.fuse_attention import fuse_attention
from compiler.passes.lower_attention import lower_attention
from tests.passes.graphs import graph, operators, random, run

LANES = 8


def _graph(query, key, bias=None, value=None, **options):
    def build(emit, q, k, v, *rest):
        return relax.op.nn.attention(q, k, v, *rest, **options)

    shapes = {"q": query, "k": key, "v": value or key} | ({"b": bias} if bias else {})
    return graph(build, **shapes)


@pytest.mark.parametrize(
    ("query", "key", "bias", "options"),
    [
        ((2, 9, 3, 16), (2, 9, 3, 16), None, {}),
        ((1, 5, 2, 8), (1, 13, 2, 8), (1, 1, 5, 13), {"scale": 0.3}),
        ((2, 7, 2, 8), (2, 7, 2, 8), (2, 2, 1, 7), {}),
        ((1, 6, 1, 24), (1, 6, 1, 24), None, {"causal_mask": "TopLeft"}),
        ((1, 4, 2, 8), (1, 11, 2, 8), None, {"causal_mask": "BottomRight"}),
    ],
)
def test_numbers_are_those_of_two_products_and_a_softmax(query, key, bias, options):
    before = _graph(query, key, bias, **options)
    after = fuse_attention(LANES)(before)
    assert operators(after) == ["attention"]
    arrays = [random(*query), random(*key, seed=2), random(*key, seed=3)]
    arrays += [random(*bias, seed=4)] if bias else []
    expected = run(lower_attention(before), *arrays)
    # Weighted means of values of order 1, in float32 on both sides.
    np.testing.assert_allclose(run(after, *arrays), expected, atol=2e-6)


@pytest.mark.parametrize(("depth", "columns"), [(12, 12), (8, 20), (5, 8)])
def test_queries_and_values_of_any_depth(depth, columns):
    shapes = (1, 5, 2, depth), (1, 7, 2, depth), (1, 7, 2, columns)
    before = _graph(shapes[0], shapes[1], value=shapes[2])
    after = fuse_attention(LANES)(before)
    assert operators(after) == ["attention"]
    arrays = [random(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    np.testing.assert_allclose(run(after, *arrays), run(lower_attention(before), *arrays), atol=2e-6)


def test_unknown_shapes_stay():
    n = tirx.Var("n", "int64")
    before = _graph((n, 5, 2, 8), (n, 5, 2, 8))
    assert operators(fuse_attention(LANES)(before)) == ["nn.attention"]
