"""GELU written out becomes one op."""

import math

import pytest
import torch
from tvm.script import ir as I
from tvm.script import relax as R

from compiler.passes.recognize_gelu import recognize_gelu
from tests.frontend.converters.harness import as_module

from .recognize_cases import assert_rewrites, assert_unchanged, recognized


def test_erf():
    @I.ir_module(s_tir=True)
    class Before:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                a = R.divide(x, R.const(1.4142135623730951, "float32"))
                b = R.erf(a)
                c = R.add(R.const(1, "float32"), b)
                d = R.multiply(x, c)
                y = R.multiply(d, R.const(0.5, "float32"))
                R.output(y)
            return y

    @I.ir_module(s_tir=True)
    class After:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                y = R.nn.gelu(x)
                R.output(y)
            return y

    assert_rewrites(recognize_gelu, Before, After)


def test_another_slope_stays():
    @I.ir_module(s_tir=True)
    class Steeper:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                a = R.divide(x, R.const(1.5, "float32"))
                b = R.erf(a)
                c = R.add(R.const(1, "float32"), b)
                d = R.multiply(x, c)
                y = R.multiply(d, R.const(0.5, "float32"))
                R.output(y)
            return y

    assert_unchanged(recognize_gelu, Steeper)


K = math.sqrt(2 / math.pi)
SPELLINGS = {
    "half first": (lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))), "nn.gelu"),
    "half on the gate": (lambda x: x * (0.5 * (1.0 + torch.erf(x * 0.7071067811865475))), "nn.gelu"),
    "gpt2": (lambda x: 0.5 * x * (1.0 + torch.tanh(K * (x + 0.044715 * torch.pow(x, 3.0)))), "nn.gelu_tanh"),
    "factored": (
        lambda x: x * 0.5 * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x))),
        "nn.gelu_tanh",
    ),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_from_torch(name):
    function, op = SPELLINGS[name]
    assert recognized(recognize_gelu, as_module(function), (torch.randn(4, 9) * 3,)) == [op]


def test_quick_gelu_is_not_gelu():
    assert "nn.gelu" not in recognized(
        recognize_gelu, as_module(lambda x: x * torch.sigmoid(1.702 * x)), (torch.randn(4),)
    )
