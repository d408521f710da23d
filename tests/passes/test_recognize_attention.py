"""Attention written out becomes one op."""

import math

import pytest
import torch
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from compiler.passes.recognize_attention import recognize_attention
from tests.frontend.converters.harness import as_module

from .recognize_cases import assert_rewrites, assert_unchanged, recognized


def test_scaled_scores_with_mask():
    @I.ir_module(s_tir=True)
    class Before:
        @R.function
        def main(
            q: R.Tensor((2, 3, 4, 8), "float32"),
            k: R.Tensor((2, 3, 5, 8), "float32"),
            v: R.Tensor((2, 3, 5, 6), "float32"),
            m: R.Tensor((2, 1, 4, 5), "float32"),
        ):
            with R.dataflow():
                kt = R.permute_dims(k, [0, 1, 3, 2])
                s = R.matmul(q, kt)
                t = R.divide(s, R.const(4, "float32"))
                u = R.add(t, m)
                w = R.nn.softmax(u, axis=-1)
                y = R.matmul(w, v)
                R.output(y)
            return y

    @I.ir_module(s_tir=True)
    class After:
        @R.function
        def main(
            q: R.Tensor((2, 3, 4, 8), "float32"),
            k: R.Tensor((2, 3, 5, 8), "float32"),
            v: R.Tensor((2, 3, 5, 6), "float32"),
            m: R.Tensor((2, 1, 4, 5), "float32"),
        ):
            with R.dataflow():
                kt = R.permute_dims(k, [0, 1, 3, 2])
                a = R.permute_dims(q, [0, 2, 1, 3])
                b = R.permute_dims(kt, [0, 3, 1, 2])
                c = R.permute_dims(v, [0, 2, 1, 3])
                d = R.nn.attention(a, b, c, bias=m, scale=T.float32(0.25))
                y = R.permute_dims(d, [0, 2, 1, 3])
                R.output(y)
            return y

    assert_rewrites(recognize_attention, Before, After)


def test_softmax_over_queries_stays():
    @I.ir_module(s_tir=True)
    class Other:
        @R.function
        def main(
            q: R.Tensor((2, 3, 4, 8), "float32"),
            k: R.Tensor((2, 3, 8, 4), "float32"),
            v: R.Tensor((2, 3, 4, 6), "float32"),
        ):
            with R.dataflow():
                s = R.matmul(q, k)
                w = R.nn.softmax(s, axis=2)
                y = R.matmul(w, v)
                R.output(y)
            return y

    assert_unchanged(recognize_attention, Other)


Q, K, V = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 6)
LOW = torch.finfo(torch.float32).min


def plain(q, k, v):
    return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(8), -1) @ v


SPELLINGS = {
    "plain": (plain, (Q, K, V)),
    "no scale": (lambda q, k, v: (q @ k.mT).softmax(-1) @ v, (Q, K, V)),
    "scaled queries": (lambda q, k, v: torch.softmax((q * 0.3) @ k.mT, -1) @ v, (Q, K, V)),
    "scaled both": (lambda q, k, v: torch.softmax((q * 0.6) @ (k.mT * 0.6), -1) @ v, (Q, K, V)),
    "three axes": (
        lambda q, k, v: torch.bmm(torch.softmax(torch.bmm(q, k.mT) * 0.5, -1), v),
        (Q[0], K[0], V[0]),
    ),
    "added mask": (
        lambda q, k, v, m: torch.softmax(m + 0.2 * (q @ k.mT), 3) @ v,
        (Q, K, V, torch.randn(2, 1, 1, 5)),
    ),
    "mask of two axes": (
        lambda q, k, v, m: torch.softmax(0.2 * (q @ k.mT) + m, 3) @ v,
        (Q, K, V, torch.randn(4, 5)),
    ),
    "masked fill": (
        lambda q, k, v, m: torch.softmax((q @ k.mT).masked_fill(m, LOW), -1) @ v,
        (Q, K, V, torch.rand(4, 5) > 0.7),
    ),
    "where": (
        lambda q, k, v, m: torch.softmax(torch.where(m, q @ k.mT, LOW), -1) @ v,
        (Q, K, V, torch.rand(2, 1, 4, 5) > 0.3),
    ),
    "split heads": (
        lambda x: (
            plain(*(x.view(2, 4, 3, 8).transpose(1, 2) * f for f in (1, 2, 3)))
            .transpose(1, 2)
            .reshape(2, 4, 24)
        ),
        (torch.randn(2, 4, 24),),
    ),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_from_torch(name):
    function, args = SPELLINGS[name]
    found = recognized(recognize_attention, as_module(function), args)
    assert any(op.startswith("nn.attention") for op in found)
    assert "nn.softmax" not in found


NEAR = {
    "weights given out": lambda q, k, v: ((w := torch.softmax(q @ k.mT, -1)), w @ v),
    "mild mask": lambda q, k, v: torch.softmax(torch.where(q[..., :1] > 0, q @ k.mT, -5.0), -1) @ v,
    "shared keys": lambda q, k, v: torch.softmax(q @ k[:1, :1].mT, -1) @ v,
    "added after softmax": lambda q, k, v: (torch.softmax(q @ k.mT, -1) + 1) @ v,
}


@pytest.mark.parametrize("name", NEAR)
def test_near_misses_stay(name):
    found = recognized(recognize_attention, as_module(NEAR[name]), (Q, K, V))
    assert not any(op.startswith("nn.attention") for op in found)
