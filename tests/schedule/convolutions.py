"""Runs blocked convolutions with a residual and a ReLU, and compares them with PyTorch in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tvm import te, tirx

from compiler.passes.kernels import conv2d as kernel
from compiler.passes.kernels import winograd
from compiler.passes.kernels.layout import pack_array
from compiler.target import Target
from tests.schedule.kernels import lanes_of, placeholder, random, run


def geometry(
    strides: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (1, 1, 1, 1),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> kernel.Conv2dShape:
    """Return the geometry of a convolution; `padding` is (top, left, bottom, right)."""
    return kernel.Conv2dShape(strides, padding, dilation, groups)


def expected(data: np.ndarray, weight: np.ndarray, shape: kernel.Conv2dShape) -> torch.Tensor:
    """Return the convolution in float64."""
    top, left, bottom, right = shape.padding
    x, w = (torch.from_numpy(a).double() for a in (data, weight))
    padded = torch.nn.functional.pad(x, (left, right, top, bottom))
    return torch.nn.functional.conv2d(
        padded, w, stride=shape.strides, dilation=shape.dilation, groups=shape.groups
    )


def compute(
    target: Target,
    data: np.ndarray,
    weight: np.ndarray,
    shape: kernel.Conv2dShape,
    residual: np.ndarray,
    *,
    blocked: bool = True,
    m: int | None = None,
    decisions: Any | None = None,
) -> tuple[np.ndarray, str]:
    """Return relu(convolution + residual) by our kernel, and the rule that scheduled it.

    With `m` it is Winograd's. `decisions` are of a rule, in place of its own.
    """
    lanes, outputs = lanes_of(target), weight.shape[0]
    function, packed = _packed(weight, shape, lanes, blocked=blocked, m=m)
    packed_data = pack_array(data, lanes) if blocked else data
    x, w = placeholder("x", *packed_data.shape), placeholder("w", *packed.shape)
    conv = function(x, w, shape)
    r = placeholder("r", *[int(n) for n in conv.shape])
    out = te.compute(conv.shape, lambda *i: tirx.max(conv[i] + r[i], tirx.const(0, "float32")), name="relu")
    arrays = [packed_data, packed, pack_array(residual, lanes)]
    got, rule = run([x, w, r], out, arrays, target, decisions=decisions)
    return _unpack(got, outputs), rule


def check(
    target: Target,
    data: np.ndarray,
    weight: np.ndarray,
    shape: kernel.Conv2dShape,
    *,
    blocked: bool = True,
    decisions: Any | None = None,
) -> None:
    """Compare a direct convolution with PyTorch's."""
    exact = expected(data, weight, shape)
    residual = random(*exact.shape)
    got, rule = compute(target, data, weight, shape, residual, blocked=blocked, decisions=decisions)
    assert rule == ("window" if _is_depthwise(weight, shape) else "conv2d")
    # Each output sums I * KH * KW products of unit variance, each rounded to float32.
    tolerance = 1e-6 * np.sqrt(np.prod(weight.shape[1:])) * 10
    wanted = (exact + torch.from_numpy(residual).double()).relu().numpy()
    np.testing.assert_allclose(got, wanted, atol=tolerance, rtol=1e-5)


def _is_depthwise(weight: np.ndarray, shape: kernel.Conv2dShape) -> bool:
    return shape.groups == weight.shape[0] and weight.shape[1] == 1 and shape.groups > 1


def _packed(
    weight: np.ndarray, shape: kernel.Conv2dShape, lanes: int, *, blocked: bool, m: int | None
) -> tuple[Callable[..., Any], np.ndarray]:
    """Return the kernel for `weight` and its packed form."""
    if m is not None:
        return winograd.winograd_conv2d, winograd.winograd_weights(weight, lanes, m)
    if _is_depthwise(weight, shape):
        return kernel.depthwise_conv2d, kernel.pack_depthwise_weights(weight, lanes)
    aligned = shape.groups == 1 or weight.shape[1] % lanes == 0
    return kernel.conv2d, kernel.pack_weights(weight, lanes, lanes if blocked and aligned else 0)


def _unpack(x: np.ndarray, channels: int) -> np.ndarray:
    n, blocks, h, w, lanes = x.shape
    return x.transpose(0, 1, 4, 2, 3).reshape(n, blocks * lanes, h, w)[:, :channels]
