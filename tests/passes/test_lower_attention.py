import numpy as np
import pytest
import tvm
from tvm import relax

from compiler.passes.lower_attention import lower_attention
from tests.passes.graphs import const, graph, operators, random, run

R = relax.op


def _reference(q, k, v, bias=0.0, scale=None):
    """Attention in float64 on (batch, sequence, heads, depth)."""
    q, k, v = (np.asarray(a, "float64").transpose(0, 2, 1, 3) for a in (q, k, v))
    scores = q @ k.transpose(0, 1, 3, 2) * (scale or q.shape[-1] ** -0.5) + bias
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3)


def test_becomes_two_products_around_a_softmax():
    before = graph(lambda emit, q: R.nn.attention(q, q, q, scale=0.5), q=(1, 4, 2, 8))

    def lowered(emit, q):
        scaled = emit(R.multiply(q, relax.const(np.array(0.5, "float32"))))
        queries, keys = emit(R.permute_dims(scaled, [0, 2, 1, 3])), emit(R.permute_dims(q, [0, 2, 3, 1]))
        weights = emit(R.nn.softmax(emit(R.matmul(queries, keys)), -1))
        product = emit(R.matmul(weights, emit(R.permute_dims(q, [0, 2, 1, 3]))))
        return R.permute_dims(product, [0, 2, 1, 3])

    tvm.ir.assert_structural_equal(lower_attention(before), graph(lowered, q=(1, 4, 2, 8)))


@pytest.mark.parametrize("scale", [None, 0.3])
def test_numbers_with_a_bias_and_keys_of_another_length(scale):
    bias = const(1, 2, 3, 5)
    mod = graph(
        lambda emit, q, k, v: R.nn.attention(q, k, v, bias=bias, scale=scale),
        q=(2, 3, 2, 4), k=(2, 5, 2, 4), v=(2, 5, 2, 6),
    )  # fmt: skip
    arrays = random(2, 3, 2, 4), random(2, 5, 2, 4, seed=2), random(2, 5, 2, 6, seed=3)
    after = lower_attention(mod)
    assert "nn.attention_bias" not in operators(after)
    np.testing.assert_allclose(run(after, *arrays), _reference(*arrays, bias.value.numpy(), scale), atol=1e-5)


@pytest.mark.parametrize(("mask", "shift"), [("TopLeft", 1), ("BottomRight", 3)])
def test_causal_masks(mask, shift):
    mod = graph(lambda emit, q, k: R.nn.attention(q, k, k, causal_mask=mask), q=(1, 3, 2, 4), k=(1, 5, 2, 4))
    arrays = random(1, 3, 2, 4), random(1, 5, 2, 4, seed=2)
    bias = np.triu(np.full((3, 5), -np.inf), shift)
    expected = _reference(arrays[0], arrays[1], arrays[1], bias)
    np.testing.assert_allclose(run(lower_attention(mod), *arrays), expected, atol=1e-5)
