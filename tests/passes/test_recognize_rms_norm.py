"""RMSNorm written out becomes one op."""

import pytest
import torch
from tvm.script import ir as I
from tvm.script import relax as R

from compiler.passes.recognize_rms_norm import recognize_rms_norm

from .recognize_cases import assert_rewrites, assert_unchanged, recognized


def test_without_weight():
    @I.ir_module(s_tir=True)
    class Before:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                a = R.multiply(x, x)
                b = R.mean(a, axis=[-1], keepdims=True)
                c = R.add(b, R.const(0.5, "float32"))
                d = R.rsqrt(c)
                y = R.multiply(x, d)
                R.output(y)
            return y

    got = recognize_rms_norm(Before)
    binding = got["main"].body.blocks[0].bindings[0]
    assert binding.value.op.name == "relax.nn.rms_norm"
    assert binding.value.attrs.epsilon == 0.5
    assert list(binding.value.attrs.axes) == [-1]
    assert (binding.value.args[1].value.numpy() == [1, 1, 1]).all()
    assert_unchanged(recognize_rms_norm, got)


def test_with_half_precision_input():
    @I.ir_module(s_tir=True)
    class Before:
        @R.function
        def main(x: R.Tensor((2, 1), "float16")):
            with R.dataflow():
                wide = R.astype(x, "float32")
                a = R.power(wide, R.const(2, "float32"))
                b = R.mean(a, axis=[-1], keepdims=True)
                c = R.add(b, R.const(0.25, "float32"))
                d = R.rsqrt(c)
                e = R.multiply(wide, d)
                f = R.astype(e, "float16")
                y = R.multiply(R.const([2.0], "float16"), f)
                R.output(y)
            return y

    @I.ir_module(s_tir=True)
    class After:
        @R.function
        def main(x: R.Tensor((2, 1), "float16")):
            with R.dataflow():
                y = R.nn.rms_norm(x, R.const([2.0], "float16"), axes=[-1], epsilon=0.25)
                R.output(y)
            return y

    assert_rewrites(recognize_rms_norm, Before, After)


def test_the_mean_of_something_else_stays():
    @I.ir_module(s_tir=True)
    class Other:
        @R.function
        def main(x: R.Tensor((2, 3), "float32"), z: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                a = R.multiply(z, z)
                b = R.mean(a, axis=[-1], keepdims=True)
                c = R.add(b, R.const(0.5, "float32"))
                d = R.rsqrt(c)
                y = R.multiply(x, d)
                R.output(y)
            return y

    assert_unchanged(recognize_rms_norm, Other)


class Norm(torch.nn.Module):
    def __init__(self, spelling):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(6) + 0.5)
        self.spelling = spelling

    def forward(self, x):
        return self.spelling(x, self.weight)


SPELLINGS = {
    "llama": lambda x, w: (
        w * (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)
    ),
    "square root": lambda x, w: x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * w,
    "gemma": lambda x, w: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (1 + w),
    "sum": lambda x, w: x * (1 / torch.sqrt(x.pow(2).sum(-1, keepdim=True) / 6 + 1e-5)) * w,
    "op": lambda x, w: torch.nn.functional.rms_norm(x, [6], w, 1e-5),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_from_torch(name):
    assert recognized(recognize_rms_norm, Norm(SPELLINGS[name]), (torch.randn(2, 4, 6),)) == ["nn.rms_norm"]


NEAR = {
    "sum": lambda x, w: x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6),
    "cube": lambda x, w: x * torch.rsqrt(x.pow(2).pow(1.5).mean(-1, keepdim=True) + 1e-6) * w,
    "first axis": lambda x, w: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6) * w,
    "dynamic eps": lambda x, w: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + x[..., :1].abs()) * w,
}


@pytest.mark.parametrize("name", NEAR)
def test_near_misses_stay(name):
    assert "nn.rms_norm" not in recognized(recognize_rms_norm, Norm(NEAR[name]), (torch.randn(2, 4, 6),))
