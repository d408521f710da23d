import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.passes.kernels.attention import AttentionShape, attention
from compiler.schedule.attention import default
from compiler.target import load
from tests.schedule.kernels import cpu, lanes_of, placeholder, random, run, runnable


def _expected(query, key, value, bias, shape):
    """Attention in float64, by PyTorch; it takes heads first."""
    q, k, v = (torch.from_numpy(a).double().permute(0, 2, 1, 3) for a in (query, key, value))
    mask = torch.zeros(q.shape[0], q.shape[1], q.shape[2], k.shape[2], dtype=torch.float64)
    if bias is not None:
        mask = mask + torch.from_numpy(bias)
    if shape.causal is not None:
        hidden = torch.ones(q.shape[2], k.shape[2]).triu(1 + shape.causal).bool()
        mask = mask.masked_fill(hidden, float("-inf"))
    result = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=shape.scale)
    return result.permute(0, 2, 1, 3).nan_to_num(0.0).numpy()


def _check(target, sizes, length, bias=None, causal=None, columns=None):
    batch, _, heads, depth = sizes
    arrays = [
        random(*sizes), random(batch, length, heads, depth), random(batch, length, heads, columns or depth)
    ]  # fmt: skip
    arrays += [] if bias is None else [bias]
    shape = AttentionShape(depth**-0.5, causal, lanes_of(target))
    inputs = [placeholder(f"x{i}", *array.shape) for i, array in enumerate(arrays)]
    out = attention(*inputs[:3], inputs[3] if bias is not None else None, shape)
    got, rule = run(inputs, out, arrays, target)
    assert rule == "attention"
    # A weighted mean of values of order 1; scores of order 1 carry the error of their sum.
    np.testing.assert_allclose(got, _expected(*arrays[:3], bias, shape), atol=3e-6)


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize(
    ("sizes", "length"),
    [((1, 19, 2, 16), 19), ((2, 7, 3, 32), 33), ((1, 1, 2, 64), 50), ((1, 13, 1, 16), 1)],
)
def test_shapes_that_no_tile_divides(target, sizes, length):
    _check(cpu(target), sizes, length)


@pytest.mark.parametrize("shape", [(2, 3, 9, 11), (1, 1, 1, 11), (2, 1, 9, 1), (1, 3, 1, 1)])
def test_a_bias_broadcasts(shape):
    _check(load("host"), (2, 9, 3, 16), 11, bias=random(*shape))


@pytest.mark.parametrize("causal", [0, 3, -2])
def test_masked_from_the_diagonal_on(causal):
    # With -2 the first two queries see nothing and give zeros.
    _check(load("host"), (1, 9, 2, 16), 9, causal=causal)


def test_a_query_that_sees_nothing_gives_zeros():
    bias = np.zeros((1, 1, 5, 8), "float32")
    bias[0, 0, 2] = -np.inf
    _check(load("host"), (1, 5, 2, 16), 8, bias=bias)


@settings(max_examples=10, deadline=None)
@given(
    queries=st.integers(1, 40), length=st.integers(1, 40), heads=st.integers(1, 3), batch=st.integers(1, 2)
)
def test_any_lengths(queries, length, heads, batch):
    _check(load("host"), (batch, queries, heads, 16), length)


@settings(max_examples=10, deadline=None)
@given(depth=st.integers(1, 40), columns=st.integers(1, 70), queries=st.integers(1, 20))
def test_any_depths(depth, columns, queries):
    _check(load("host"), (1, queries, 2, depth), 9, columns=columns)


def test_the_default_fits_the_registers():
    for name in ("x86-64-v3", "x86-64-v4", "rpi4", "riscv64"):
        target = load(name)
        for queries in (1, 7, 128, 197):
            d = default(queries, 25, 4, 12, target)
            for vectors in (d.key_vectors, d.depth_vectors):
                assert d.queries * vectors + vectors + 1 <= target.vector.registers
