"""Layer norm written out becomes one op."""

import pytest
import torch
from tvm.script import ir as I
from tvm.script import relax as R

from compiler.passes.recognize_layer_norm import recognize_layer_norm

from .recognize_cases import assert_rewrites, assert_unchanged, recognized


def test_with_weight_and_bias():
    @I.ir_module(s_tir=True)
    class Before:
        @R.function
        def main(x: R.Tensor((2, 1), "float32")):
            with R.dataflow():
                m = R.mean(x, axis=[1], keepdims=True)
                d = R.subtract(x, m)
                s = R.multiply(d, d)
                v = R.mean(s, axis=[1], keepdims=True)
                e = R.add(v, R.const(0.5, "float32"))
                r = R.sqrt(e)
                n = R.divide(d, r)
                p = R.multiply(n, R.const([2.0], "float32"))
                y = R.add(p, R.const([3.0], "float32"))
                R.output(y)
            return y

    @I.ir_module(s_tir=True)
    class After:
        @R.function
        def main(x: R.Tensor((2, 1), "float32")):
            with R.dataflow():
                y = R.nn.layer_norm(
                    x, R.const([2.0], "float32"), R.const([3.0], "float32"), axes=[1], epsilon=0.5
                )
                R.output(y)
            return y

    assert_rewrites(recognize_layer_norm, Before, After)


def test_a_mean_over_another_axis_stays():
    @I.ir_module(s_tir=True)
    class Other:
        @R.function
        def main(x: R.Tensor((2, 4), "float32")):
            with R.dataflow():
                m = R.mean(x, axis=[0], keepdims=True)
                d = R.subtract(x, m)
                s = R.multiply(d, d)
                v = R.mean(s, axis=[1], keepdims=True)
                e = R.add(v, R.const(0.5, "float32"))
                r = R.sqrt(e)
                y = R.divide(d, r)
                R.output(y)
            return y

    assert_unchanged(recognize_layer_norm, Other)


class Norm(torch.nn.Module):
    def __init__(self, spelling):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(6) + 0.5)
        self.bias = torch.nn.Parameter(torch.randn(6))
        self.spelling = spelling

    def forward(self, x):
        return self.spelling(x, self.weight, self.bias)


def centred(x, axis=-1):
    return x - x.mean(axis, keepdim=True)


SPELLINGS = {
    "squares": lambda x, w, b: (
        centred(x) / torch.sqrt(centred(x).pow(2).mean(-1, keepdim=True) + 1e-5) * w + b
    ),
    "var": lambda x, w, b: (
        w * (x - x.mean(-1, keepdim=True)) * torch.rsqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-5) + b
    ),
    "grouped": lambda x, w, b: (
        b + w * ((x - x.mean(-1, keepdim=True)) * torch.rsqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-5))
    ),
    "op": lambda x, w, b: torch.nn.functional.layer_norm(x, [6], w, b),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_from_torch(name):
    assert recognized(recognize_layer_norm, Norm(SPELLINGS[name]), (torch.randn(2, 4, 6),)) == [
        "nn.layer_norm"
    ]


def test_over_channels():
    def spelled(x, w, b):
        d = centred(x, 1)
        return w[:, None, None] * (d / torch.sqrt(d.pow(2).mean(1, keepdim=True) + 1e-6)) + b[:, None, None]

    assert recognized(recognize_layer_norm, Norm(spelled), (torch.randn(2, 6, 3, 4),)) == ["nn.layer_norm"]


NEAR = {
    "unbiased": lambda x, w, b: centred(x) / torch.sqrt(x.var(-1, keepdim=True) + 1e-5) * w + b,
    "deviation": lambda x, w, b: centred(x) / (x.std(-1, keepdim=True) + 1e-5) * w + b,
    "other centre": lambda x, w, b: (
        (x - x.amax(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-5)
    ),
}


@pytest.mark.parametrize("name", NEAR)
def test_near_misses_stay(name):
    assert "nn.layer_norm" not in recognized(recognize_layer_norm, Norm(NEAR[name]), (torch.randn(2, 4, 6),))
