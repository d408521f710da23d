"""Explicit quantization and fake-quantize modules, bit for bit."""

from __future__ import annotations

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch.ao.quantization import (
    FakeQuantize,
    FusedMovingAvgObsFakeQuantize,
    PerChannelMinMaxObserver,
    default_dynamic_fake_quant,
)

from compiler.frontend.converters import freeze_fake_quantize
from compiler.support.errors import ModelError

from .harness import as_module, check, import_module, ops

Q = torch.ops.quantized_decomposed
# Exact ties: 0.5 is a power of two, so x / 0.5 is exact and .25 steps fall between levels.
X = torch.cat([torch.arange(-8, 8) * 0.25, torch.tensor([1e4, -1e4, 0.0, -0.0])]).reshape(4, 5)
LEVELS = torch.randint(-128, 128, (4, 5)).to(torch.int8)
SCALES = torch.tensor([0.5, 0.25, 0.1, 0.07, 1.5])
ZEROS = torch.tensor([0, 3, -5, 100, 0])
I8 = (-128, 127, torch.int8)

CASES = {
    "int8": (lambda x: Q.quantize_per_tensor(x, 0.5, 3, *I8), (X,)),
    "uint8": (lambda x: Q.quantize_per_tensor(x, 0.03, 128, 0, 255, torch.uint8), (X,)),
    "narrow range": (lambda x: Q.quantize_per_tensor(x, 0.03, 0, -127, 100, torch.int8), (X,)),
    "tensor parameters": (
        lambda x, s, z: Q.quantize_per_tensor.tensor(x, s, z, *I8),
        (X, torch.tensor([0.5]), torch.tensor([3])),
    ),
    "per channel": (lambda x: Q.quantize_per_channel(x, SCALES, ZEROS, 1, *I8), (X,)),
    "weights per channel": (
        lambda x: Q.quantize_per_channel(x, SCALES[:4], ZEROS[:4] * 0, 0, -127, 127, torch.int8),
        (X,),
    ),
    "dequantize": (lambda x: Q.dequantize_per_tensor(x, 0.1, 3, *I8), (LEVELS,)),
    "dequantize uint8": (
        lambda x: Q.dequantize_per_tensor(x, 0.1, 200, 0, 255, torch.uint8),
        ((LEVELS.int() + 128).to(torch.uint8),),
    ),
    "dequantize int32": (
        lambda x: Q.dequantize_per_tensor(x, 0.1, 0, -(2**31), 2**31 - 1, torch.int32),
        (LEVELS.int() * 1000,),
    ),
    "dequantize by tensors": (
        lambda x, s, z: Q.dequantize_per_tensor.tensor(x, s, z, *I8),
        (LEVELS, torch.tensor(0.1), torch.tensor(3)),
    ),
    "dequantize per channel": (lambda x: Q.dequantize_per_channel(x, SCALES, ZEROS, 1, *I8), (LEVELS,)),
    "dequantize without zero points": (
        lambda x: Q.dequantize_per_channel(x, SCALES, None, 1, *I8),
        (LEVELS,),
    ),
    "choose": (lambda x: Q.choose_qparams.tensor(x, -128, 127, 1e-5, torch.int8), (X[:3],)),
    "choose symmetric": (
        lambda x: Q.choose_qparams_symmetric.tensor(x, -127, 127, 1e-5, torch.int8),
        (X[:3],),
    ),
    "choose for zeros": (lambda x: Q.choose_qparams.tensor(x, -128, 127, 1e-5, torch.int8), (X[:3] * 0,)),
    "tokens": (
        lambda x, s, z: Q.quantize_per_token(x, s, z, *I8),
        (X, SCALES[:4, None], torch.tensor([[0], [2], [-4], [100]])),
    ),
    "dequantize tokens": (
        lambda x, s, z: Q.dequantize_per_token(x, s, z, *I8, torch.float32),
        (LEVELS, SCALES[:4, None], torch.tensor([[0], [2], [-4], [100]])),
    ),
    "tokens with their own scales": (
        lambda x: Q.quantize_per_token(x, *Q.choose_qparams_per_token(x, torch.int8), *I8),
        (X[:3],),
    ),
    "levels within scales at run time": (
        lambda x, s, z: Q.quantize_per_tensor.tensor(x, s, z, 0, 127, torch.uint8),
        (X, torch.tensor([0.5]), torch.tensor([3])),
    ),
    "fake with more levels than bytes": (
        lambda x: torch.fake_quantize_per_tensor_affine(x, 0.5, 3, -1000, 1000),
        (X,),
    ),
    "fake per channel in few levels": (
        lambda x: torch.fake_quantize_per_channel_affine(x, SCALES, ZEROS.int() // 20, 1, -7, 7),
        (X,),
    ),
    "fake": (lambda x: torch.fake_quantize_per_tensor_affine(x, 0.5, 3, -128, 127), (X,)),
    "fake by tensors": (
        lambda x: torch.fake_quantize_per_tensor_affine(x, torch.tensor(0.5), torch.tensor(3), -128, 127),
        (X,),
    ),
    "fake per channel": (
        lambda x: torch.fake_quantize_per_channel_affine(x, SCALES, ZEROS.int(), 1, -128, 127),
        (X,),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_quantized(name):
    function, args = CASES[name]
    check(function, args, tolerance=0)


def test_quantization_stays_explicit():
    mod = import_module(
        as_module(lambda x: Q.dequantize_per_tensor(Q.quantize_per_tensor(x, 0.5, 3, *I8), 0.5, 3, *I8)), (X,)
    )
    assert ops(mod) == ["quantize", "dequantize"]


def test_scales_at_run_time_are_vectors_of_rows():
    """The form that `compiler.passes.lower_dynamic` looks for."""

    def rounded(x):
        scale, zero = Q.choose_qparams.tensor(x, -128, 127, 1e-5, torch.int8)
        return Q.dequantize_per_tensor.tensor(
            Q.quantize_per_tensor.tensor(x, scale, zero, *I8), scale, zero, *I8
        )

    found = ops(import_module(as_module(rounded), (X,)))
    assert found[-4:] == ["quantize", "reshape", "dequantize", "reshape"]


def test_dynamic_fake_quantization_looks_at_each_input():
    fake = default_dynamic_fake_quant()
    frozen = freeze_fake_quantize(fake.eval())
    for x in (X[:3], X[:3] / 9):
        torch.testing.assert_close(frozen(x), fake(x))
    check(frozen, (X[:3],), tolerance=1.01 / 255)  # one level: values lie between two


@pytest.mark.parametrize("kind", [FakeQuantize, FusedMovingAvgObsFakeQuantize])
def test_frozen_fake_quantize(kind):
    net = torch.nn.Sequential(torch.nn.Linear(5, 3), kind())
    net(X.clamp(-2, 2))
    net.eval()
    frozen = freeze_fake_quantize(net)
    assert frozen is not net
    check(frozen, (X,), tolerance=0.01)
    net[1].disable_observer()
    torch.testing.assert_close(frozen(X), net(X))


def test_frozen_per_channel():
    fake = FakeQuantize(
        PerChannelMinMaxObserver, -127, 127, dtype=torch.int8, qscheme=torch.per_channel_symmetric, ch_axis=0
    )
    fake(X.clamp(-2, 2))
    check(freeze_fake_quantize(fake.eval()), (X,), tolerance=0)


def test_modules_without_fake_quantization_are_left_alone():
    net = torch.nn.Linear(5, 3)
    assert freeze_fake_quantize(net) is net


def test_int16_is_refused():
    with pytest.raises((ModelError, AssertionError)):
        import_module(as_module(lambda x: Q.quantize_per_tensor(x, 0.5, 0, -32768, 32767, torch.int16)), (X,))
