"""Hard-swish in every spelling becomes the canonical form."""

import pytest
import torch
from torch.nn import functional as F
from tvm.script import ir as I
from tvm.script import relax as R

from compiler.passes.recognize_hard_swish import recognize_hard_swish
from tests.frontend.converters.harness import as_module

from .recognize_cases import assert_rewrites, assert_unchanged, recognized

CANONICAL = ["add", "clip", "divide", "multiply"]


@I.ir_module(s_tir=True)
class Canonical:
    @R.function
    def main(x: R.Tensor((2, 3), "float32")):
        with R.dataflow():
            a = R.add(x, R.const(3, "float32"))
            b = R.clip(a, 0, 6)
            c = R.divide(b, R.const(6, "float32"))
            y = R.multiply(x, c)
            R.output(y)
        return y


def test_division_last():
    @I.ir_module(s_tir=True)
    class Before:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                a = R.add(x, R.const(3, "float32"))
                b = R.nn.relu6(a)
                c = R.multiply(b, x)
                y = R.divide(c, R.const(6, "float32"))
                R.output(y)
            return y

    assert_rewrites(recognize_hard_swish, Before, Canonical)


def test_the_canonical_form_stays():
    assert_unchanged(recognize_hard_swish, Canonical)


def test_another_bound_stays():
    @I.ir_module(s_tir=True)
    class Clipped:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                a = R.add(x, R.const(3, "float32"))
                b = R.clip(a, 0, 5)
                c = R.multiply(b, x)
                y = R.divide(c, R.const(6, "float32"))
                R.output(y)
            return y

    assert_unchanged(recognize_hard_swish, Clipped)


SPELLINGS = {
    "relu6": lambda x: x * F.relu6(x + 3) / 6,
    "relu6 grouped": lambda x: x * (F.relu6(x + 3.0) / 6.0),
    "relu6 times sixth": lambda x: x * F.relu6(x + 3) * (1 / 6),
    "hardtanh": lambda x: F.hardtanh(x + 3, 0.0, 6.0) * x * 0.16666667,
    "clamp": lambda x: x * (x + 3).clamp(0, 6) / 6,
    "hard sigmoid": lambda x: x * F.hardtanh(x / 6 + 0.5, 0.0, 1.0),
    "op": F.hardswish,
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_from_torch(name):
    assert recognized(recognize_hard_swish, as_module(SPELLINGS[name]), (torch.randn(4, 9) * 4,)) == CANONICAL
