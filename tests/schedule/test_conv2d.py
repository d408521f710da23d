import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, tirx

from compiler.passes.kernels import conv2d as kernel
from compiler.passes.kernels.layout import pack_array
from compiler.schedule.conv2d import default, legal
from compiler.target import load
from tests.schedule.kernels import cpu, lanes_of, placeholder, random, run, runnable


def _unpack(x, channels):
    n, blocks, h, w, lanes = x.shape
    return x.transpose(0, 1, 4, 2, 3).reshape(n, blocks * lanes, h, w)[:, :channels]


def _expected(data, weight, shape, residual):
    """Convolution, residual and ReLU in float64, by PyTorch."""
    top, left, bottom, right = shape.padding
    x, w = (torch.from_numpy(a).double() for a in (data, weight))
    padded = torch.nn.functional.pad(x, (left, right, top, bottom))
    y = torch.nn.functional.conv2d(
        padded, w, stride=shape.strides, dilation=shape.dilation, groups=shape.groups
    )
    return (y + torch.from_numpy(residual).double()).relu().numpy()


def _check(target, data, weight, shape, *, blocked=True):
    lanes, outputs = lanes_of(target), weight.shape[0]
    depthwise = shape.groups == outputs and weight.shape[1] == 1 and shape.groups > 1
    aligned = shape.groups == 1 or weight.shape[1] % lanes == 0
    packed_data = pack_array(data, lanes) if blocked else data
    if depthwise:
        packed_weight = kernel.pack_depthwise_weights(weight, lanes)
    else:
        packed_weight = kernel.pack_weights(weight, lanes, lanes if blocked and aligned else 0)
    x, w = placeholder("x", *packed_data.shape), placeholder("w", *packed_weight.shape)
    conv = (kernel.depthwise_conv2d if depthwise else kernel.conv2d)(x, w, shape)
    residual = random(data.shape[0], outputs, int(conv.shape[2]), int(conv.shape[3]))
    r = placeholder("r", *[int(n) for n in conv.shape])
    out = te.compute(conv.shape, lambda *i: tirx.max(conv[i] + r[i], tirx.const(0, "float32")), name="relu")
    got, rule = run([x, w, r], out, [packed_data, packed_weight, pack_array(residual, lanes)], target)
    assert rule == "conv2d"
    expected = _expected(data, weight, shape, residual)
    # Each output sums I * KH * KW products of unit variance, each rounded to float32.
    tolerance = 1e-6 * np.sqrt(np.prod(weight.shape[1:])) * 10
    np.testing.assert_allclose(_unpack(got, outputs), expected, atol=tolerance, rtol=1e-5)


def _shape(strides=(1, 1), padding=(1, 1, 1, 1), dilation=(1, 1), groups=1):
    return kernel.Conv2dShape(strides, padding, dilation, groups)


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize(
    ("data", "weight", "shape"),
    [
        ((1, 32, 14, 14), (32, 32, 3, 3), _shape()),
        ((2, 20, 9, 13), (33, 20, 3, 3), _shape(strides=(2, 2))),
        ((1, 64, 7, 7), (128, 64, 1, 1), _shape(padding=(0, 0, 0, 0))),
        ((1, 16, 11, 37), (16, 16, 5, 3), _shape(padding=(2, 0, 1, 3), dilation=(1, 2))),
        ((1, 64, 8, 8), (64, 32, 3, 3), _shape(groups=2)),
        ((1, 24, 8, 31), (24, 1, 3, 3), _shape(groups=24)),
        ((1, 17, 15, 15), (17, 1, 5, 5), _shape(strides=(2, 1), padding=(2, 2, 2, 2), groups=17)),
    ],
)
def test_blocked_convolutions(target, data, weight, shape):
    _check(cpu(target), random(*data), random(*weight), shape)


@pytest.mark.parametrize("target", runnable())
def test_a_first_layer_reads_plain_nchw(target):
    shape = _shape(strides=(2, 2), padding=(3, 3, 3, 3))
    _check(cpu(target), random(1, 3, 27, 29), random(40, 3, 7, 7), shape, blocked=False)


@settings(max_examples=12, deadline=None)
@given(
    width=st.integers(1, 45),
    channels=st.integers(1, 40),
    outputs=st.integers(1, 40),
    kernel_size=st.sampled_from([1, 2, 3]),
    stride=st.integers(1, 3),
    batch=st.integers(1, 2),
)
def test_any_geometry(width, channels, outputs, kernel_size, stride, batch):
    size = max(width, kernel_size)
    shape = _shape(strides=(stride, stride), padding=(kernel_size // 2,) * 4)
    data, weight = random(batch, channels, size, size), random(outputs, channels, kernel_size, kernel_size)
    _check(load("host"), data, weight, shape)


def test_every_legal_decision_fits_the_registers_and_the_default_is_one_of_them():
    for name in ("x86-64-v3", "x86-64-v4", "rpi4", "riscv64"):
        target = load(name)
        decisions = legal(target)
        assert all(d.tile.accumulators < target.vector.registers for d in decisions)
        for width in (None, 1, 7, 13, 56, 113):
            for blocks in (None, 1, 3, 8):
                assert default(width, blocks, target, depthwise=False) in decisions


def test_the_default_wastes_no_columns_where_a_tile_divides_them():
    target = load("x86-64-v4")
    for width in (7, 14, 28, 56, 112):
        tile = default(width, 8, target, depthwise=False).tile
        assert width % tile.rows == 0, (width, tile)
        assert tile.accumulators >= 7
