"""Arithmetic, promotion, NaN and integer edge cases."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from compiler.support.errors import ModelError

from .harness import as_module, check, import_module, ops

NAN, INF = float("nan"), float("inf")
X = torch.tensor([[-3.5, -2.5, -1.0, -0.5, -0.0], [0.0, 0.5, 1.5, 2.5, 7.25]])
ODD = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 1.0, -2.0])
INTS = torch.tensor([-7, -3, -1, 0, 2, 5, 9])
SMALL = torch.tensor([1e-7, -1e-6, 0.3, 40.0, -40.0])
BOOLS = torch.tensor([True, False, True, False, True, True, False])
DIVISORS = torch.tensor([2, -2, 3, 4, -5, 1, -1])

CASES = {
    "round": (lambda x: torch.round(x), (X,)),
    "round decimals": (lambda x: torch.round(x, decimals=1), (X,)),
    "round of tens": (lambda x: torch.round(x, decimals=-1), (X * 10,)),
    "floor ceil trunc": (lambda x: (x.floor(), x.ceil(), x.trunc()), (X,)),
    "floor of ints": (lambda x: (x.floor(), x.ceil(), x.round()), (INTS,)),
    "float functions of ints": (lambda x: (x.exp(), x.sin(), x.sigmoid(), x.tanh(), x.atan()), (INTS,)),
    "roots": (lambda x: (x.sqrt(), x.rsqrt(), x.log()), (torch.tensor([0.25, 2.0, 9.0]),)),
    "log1p expm1": (lambda x: (x.abs().log1p(), x.expm1()), (SMALL,)),
    "log bases": (lambda x: (x.log2(), x.log10(), x.exp2()), (torch.tensor([0.5, 1.0, 3.0]),)),
    "hyperbolic": (lambda x: (x.sinh(), x.cosh(), x.asinh(), x.atan()), (X,)),
    "inverse": (lambda x: (x.acos(), x.asin(), x.atanh(), x.tan()), (torch.tensor([-0.9, 0.0, 0.4]),)),
    "abs sign neg": (lambda x: (x.abs(), x.sign(), -x), (ODD,)),
    "abs sign neg of ints": (lambda x: (x.abs(), x.sign(), -x), (INTS,)),
    "classify": (lambda x: (x.isnan(), x.isinf(), x.isfinite()), (ODD,)),
    "classify ints": (lambda x: (x.isnan(), x.isinf(), x.isfinite()), (INTS,)),
    "int true division": (lambda x, y: x / y, (INTS, DIVISORS)),
    "int by scalar": (lambda x: (x / 4, 4 / (x + 20)), (INTS,)),
    "int8 and float": (lambda x, y: x * y, (INTS.to(torch.int8), torch.rand(7))),
    "uint8 wraps": (lambda x: x * 3 + 200, (torch.arange(0, 200, 13, dtype=torch.uint8),)),
    "floor division": (lambda x, y: torch.div(x, y, rounding_mode="floor"), (INTS, DIVISORS)),
    "trunc division": (lambda x, y: torch.div(x, y, rounding_mode="trunc"), (INTS, DIVISORS)),
    "floor division by scalar": (lambda x: torch.div(x, 2, rounding_mode="floor"), (INTS,)),
    "float floor division": (
        lambda x: torch.div(x, 0.1, rounding_mode="floor"),
        (torch.tensor([1.0, -1.0, 0.35]),),
    ),
    "float trunc division": (lambda x: torch.div(x, 0.7, rounding_mode="trunc"), (X,)),
    "floordiv operator": (lambda x: x // 3, (INTS,)),
    "remainder": (lambda x, y: (x % y, torch.fmod(x, y)), (INTS, DIVISORS)),
    "float remainder": (lambda x: (x % 0.75, torch.fmod(x, -0.75), x % -2), (X,)),
    "add alpha": (lambda x, y: torch.add(x, y, alpha=3), (X, X.flip(0))),
    "sub alpha": (lambda x, y: torch.sub(x, y, alpha=0.5), (X, X.flip(0))),
    "rsub": (lambda x: 1 - x, (X,)),
    "bool arithmetic": (lambda a, b: (a + b, a * b, a & b, a | b, a ^ b, ~a), (BOOLS, BOOLS.flip(0))),
    "int bits": (lambda x, y: (x & y, x | y, x ^ y, ~x), (INTS, DIVISORS)),
    "shifts": (lambda x: (x << 3, x >> 1, x >> 70, x << 64), (INTS,)),
    "shift by tensor": (
        lambda x, y: (x << y, x >> y),
        (INTS.int(), torch.tensor([0, 1, 2, 3, 31, 32, 40]).int()),
    ),
    "comparisons": (lambda x, y: (x < y, x <= y, x > y, x >= y, x == y, x != y), (ODD, ODD.flip(0))),
    "int against float": (lambda x: (x < 2.5, x == 2, x >= -1.5), (INTS,)),
    "bool comparisons": (lambda a, b: (a == b, a != b, a < b), (BOOLS, BOOLS.flip(0))),
    "logic on numbers": (
        lambda x, y: (x.logical_and(y), x.logical_or(y), x.logical_xor(y), x.logical_not()),
        (ODD, ODD.roll(1)),
    ),
    "maximum": (lambda x, y: (torch.maximum(x, y), torch.minimum(x, y)), (ODD, ODD.roll(1))),
    "maximum of ints": (lambda x, y: (torch.maximum(x, y), torch.minimum(x, y)), (INTS, DIVISORS)),
    "clamp": (lambda x: x.clamp(-1, 1), (ODD,)),
    "clamp below": (lambda x: x.clamp(min=0.5), (ODD,)),
    "clamp above": (lambda x: x.clamp(max=0.5), (ODD,)),
    "int clamp one bound": (lambda x: (x.clamp(min=0), x.clamp(max=3), x.clamp(-2, 4)), (INTS,)),
    "int clamp to float": (lambda x: x.clamp(min=0.5), (INTS,)),
    "clamp by tensors": (lambda x, low: torch.clamp(x, min=low), (ODD, ODD.roll(2))),
    "where": (lambda c, x: (torch.where(c, x, 0), torch.where(c, x, 1.5)), (BOOLS, INTS)),
    "masked fill": (lambda x, m: x.masked_fill(m, -INF), (ODD, BOOLS)),
    "pow": (lambda x: (x**2, x**3, x**-1, x**0.5, x**1.7), (torch.rand(9) + 0.2,)),
    "pow negative base": (lambda x: (x**2, x**3, x**-2), (X - 0.25,)),
    "int pow": (lambda x: (x**2, x**3, x**5, x**0), (INTS,)),
    "pow of tensors": (lambda x, y: (x**y, 2.0**y), (torch.rand(2, 5) + 0.1, X)),
    "atan2": (lambda x, y: torch.atan2(x, y), (X, X.flip(1))),
    "casts": (lambda x: (x.int(), x.bool(), x.to(torch.float64), (x * 0.3).to(torch.int8)), (X,)),
    "int to bool": (lambda x: (x.bool(), x.to(torch.uint8).float()), (INTS,)),
    "float64": (lambda x: x * 1.1 + 1e-9, (X.double(),)),
    "nan to num": (lambda x: torch.nan_to_num(x, nan=2.0, posinf=9.0), (ODD,)),
    "addcmul": (lambda x: torch.addcmul(x, x, x, value=0.5), (X,)),
    "lerp": (lambda x: torch.lerp(x, x.flip(0), 0.3), (X,)),
    "xlogy": (lambda x: torch.xlogy(x.abs(), x.abs()), (X,)),
    "logaddexp": (lambda x: torch.logaddexp(x, x.flip(0)), (X,)),
    "frac": (lambda x: (x.frac(), x.sgn()), (X,)),
    "scalar tensor operand": (lambda x, s: x * s, (X, torch.tensor(2.0, dtype=torch.float64))),
    "isclose": (lambda x: torch.isclose(x, x + 1e-9), (X,)),
    "heaviside": (lambda x: torch.heaviside(x, torch.tensor(0.5)), (X,)),
}


@pytest.mark.parametrize("name", CASES)
def test_elementwise(name):
    function, args = CASES[name]
    check(function, args)


ACTIVATIONS = {
    "relu": F.relu,
    "relu6": F.relu6,
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.7),
    "selu": F.selu,
    "elu": lambda x: F.elu(x, 0.6),
    "celu": lambda x: F.celu(x, 0.7),
    "mish": F.mish,
    "softplus": lambda x: F.softplus(x, beta=2, threshold=3),
    "softsign": F.softsign,
    "softshrink": F.softshrink,
    "hardshrink": F.hardshrink,
    "tanhshrink": F.tanhshrink,
    "leaky relu": lambda x: F.leaky_relu(x, 0.2),
    "rrelu": F.rrelu,
    "logsigmoid": F.logsigmoid,
    "threshold": lambda x: F.threshold(x, 0.1, 20.0),
    "glu": lambda x: F.glu(x, dim=0),
    "softmax": lambda x: F.softmax(x, 0),
    "log softmax": lambda x: F.log_softmax(x, -1),
    "softmin": lambda x: F.softmin(x, 1),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])),
    "dropout": lambda x: F.dropout(x, training=False),
    "logit": lambda x: torch.logit(torch.sigmoid(x), eps=1e-3),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name):
    check(ACTIVATIONS[name], (torch.cat([X, X * 0.3]),))


def test_relu_of_ints():
    check(F.relu, (INTS,))


def test_canonical_hard_swish():
    assert ops(import_module(as_module(F.hardswish), (X,))) == ["add", "clip", "divide", "multiply"]


@pytest.mark.parametrize("function", [lambda x: x**-3, lambda x: x**x])
def test_integer_powers_without_an_integer_result_are_refused(function):
    with pytest.raises((ModelError, RuntimeError)):
        import_module(as_module(function), (INTS,))
