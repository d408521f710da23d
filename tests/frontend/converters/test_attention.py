"""Attention stays one op and equals PyTorch, masks of every kind included."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from compiler.passes.lower_attention import lower_attention

from .harness import as_module, assert_same, check, import_module, ops, run

Q = torch.randn(2, 4, 5, 8)
K = torch.randn(2, 4, 7, 8)
V = torch.randn(2, 4, 7, 6)
INF = float("inf")


def sdpa(**options):
    return lambda q, k, v, *mask: F.scaled_dot_product_attention(q, k, v, *mask, **options)


def padded_mask():
    mask = torch.rand(2, 1, 5, 7) > 0.4
    mask[1, 0, 2] = False
    return mask


CASES = {
    "plain": (sdpa(), (Q, K, V)),
    "scale": (sdpa(scale=0.7), (Q, K, V)),
    "causal": (sdpa(is_causal=True), (Q, Q.flip(0), Q * 0.5)),
    "causal rectangle": (sdpa(is_causal=True), (Q, K, V)),
    "causal tall": (sdpa(is_causal=True), (K, Q, Q)),
    "float mask": (sdpa(), (Q, K, V, torch.randn(2, 4, 5, 7))),
    "float mask of two axes": (sdpa(), (Q, K, V, torch.randn(5, 7))),
    "float mask one row": (sdpa(), (Q, K, V, torch.randn(2, 1, 1, 7))),
    "float mask with infinities": (sdpa(), (Q, K, V, torch.where(padded_mask(), 0.0, -INF))),
    "bool mask": (sdpa(), (Q, K, V, padded_mask())),
    "bool mask one row": (sdpa(), (Q, K, V, torch.rand(2, 1, 1, 7) > 0.3)),
    "bool mask of two axes": (sdpa(scale=0.2), (Q, K, V, torch.ones(5, 7, dtype=torch.bool).tril())),
    "everything masked": (sdpa(), (Q, K, V, torch.zeros(5, 7, dtype=torch.bool))),
    "three axes": (sdpa(), (Q[0], K[0], V[0])),
    "three axes with mask": (sdpa(), (Q[0], K[0], V[0], padded_mask()[0])),
    "two axes": (sdpa(is_causal=True), (Q[0, 0], K[0, 0], V[0, 0])),
    "five axes": (sdpa(), (Q[None], K[None], V[None])),
    "broadcast keys": (sdpa(), (Q, K[:1], V[:1])),
    "grouped heads": (sdpa(enable_gqa=True), (Q, K[:, :2], V[:, :2])),
    "grouped heads causal": (sdpa(enable_gqa=True, is_causal=True), (Q, K[:, :1, :5], V[:, :1, :5])),
    "double": (sdpa(), (Q.double(), K.double(), V.double())),
    "large logits": (sdpa(), (Q * 30, K * 30, V)),
}


@pytest.mark.parametrize("name", CASES)
def test_attention(name):
    function, args = CASES[name]
    mod = check(function, args)
    assert sum(op in ("nn.attention", "nn.attention_bias") for op in ops(mod)) == 1


def test_large_negative_logits_under_a_causal_mask():
    """TVM's own legalization divides zero by zero here; Kiln's lowering must not."""
    args = (-Q.abs() * 40, K.abs() * 40, V)
    module = as_module(sdpa(is_causal=True))
    (got,) = run(lower_attention(import_module(module, args)), args)
    assert_same(got, module(*args), 2e-5)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}], ids=["plain", "causal"])
def test_dynamic_length(options):
    length = torch.export.Dim("length", min=2, max=64)
    shape = {2: length}
    check(sdpa(**options), (Q, Q, Q), {"a": (shape, shape, shape)}, (K, K, K))


def test_dynamic_length_with_mask():
    length = torch.export.Dim("length", min=2, max=64)
    shape = {2: length}
    mask, other = torch.rand(2, 1, 1, 5) > 0.3, torch.rand(2, 1, 1, 7) > 0.3
    check(sdpa(), (Q, Q, Q, mask), {"a": (shape, shape, shape, {3: length})}, (K, K, K, other))


def test_one_mask_is_converted_once_for_many_layers():
    mod = import_module(
        as_module(lambda x, m: sdpa()(sdpa()(x, x, x, m), x, x, m)), (Q, padded_mask()[..., :5])
    )
    assert ops(mod).count("nn.attention_bias") == 2
    assert ops(mod).count("max") == 1
