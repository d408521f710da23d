"""``x * sigmoid(x)`` becomes SiLU."""

import torch
from tvm.script import ir as I
from tvm.script import relax as R

from compiler.passes.recognize_silu import recognize_silu
from tests.frontend.converters.harness import as_module

from .recognize_cases import assert_rewrites, assert_unchanged, recognized


def test_sigmoid_times_x():
    @I.ir_module(s_tir=True)
    class Before:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                gate = R.sigmoid(x)
                y = R.multiply(gate, x)
                R.output(y)
            return y

    @I.ir_module(s_tir=True)
    class After:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                y = R.nn.silu(x)
                R.output(y)
            return y

    assert_rewrites(recognize_silu, Before, After)


def test_a_gate_of_something_else_stays():
    @I.ir_module(s_tir=True)
    class Gated:
        @R.function
        def main(x: R.Tensor((2, 3), "float32"), z: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                gate = R.sigmoid(z)
                y = R.multiply(x, gate)
                R.output(y)
            return y

    assert_unchanged(recognize_silu, Gated)


def test_from_torch():
    assert recognized(recognize_silu, as_module(lambda x: x * torch.sigmoid(x)), (torch.randn(3, 5),)) == [
        "nn.silu"
    ]
