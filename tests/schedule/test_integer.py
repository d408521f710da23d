"""Layers of bytes against numpy's integers, to the last bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te

from compiler.passes.kernels import conv2d, dense
from compiler.target import load
from tests.schedule.kernels import cpu, lanes_of, run, runnable


def _bytes(shape, dtype):
    """Random bytes, every tenth of them extreme."""
    info, rng = np.iinfo(dtype), np.random.default_rng()
    values = rng.integers(info.min, info.max + 1, shape)
    extreme = rng.choice([info.min, info.max], shape)
    return np.where(rng.random(shape) < 0.1, extreme, values).astype(dtype)


def _input(array, name):
    return te.placeholder(array.shape, str(array.dtype), name)


def _blocked(x, lanes, fill):
    n, channels, height, width = x.shape
    padded = np.pad(x, ((0, 0), (0, -channels % lanes), (0, 0), (0, 0)), constant_values=fill)
    return np.ascontiguousarray(padded.reshape(n, -1, lanes, height, width).transpose(0, 1, 3, 4, 2))


def _expected(x, weight, shape, outside):
    """The convolution in float64, which holds all sums of bytes exactly."""
    top, left, bottom, right = shape.padding
    padded = np.pad(
        x.astype("float64"), ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=outside
    )
    result = torch.nn.functional.conv2d(
        torch.from_numpy(padded), torch.from_numpy(weight.astype("float64")),
        stride=shape.strides, dilation=shape.dilation, groups=shape.groups,
    )  # fmt: skip
    return result.numpy()


def _check_convolution(target, dtype, channels, outputs, size, kernel, shape, outside, batch=1):
    lanes = lanes_of(target)
    x = _bytes((batch, channels, *size), dtype)
    weight = _bytes((outputs, channels // shape.groups, *kernel), "int8")
    depthwise = shape.groups == channels == outputs > 1
    if depthwise:
        packed = conv2d.pack_depthwise_weights(weight, lanes)
        compute = conv2d.depthwise_integer
        data = _blocked(x, lanes, 3)
    else:
        width = 4 if channels <= 4 else lanes
        packed = conv2d.pack_narrow_weights(weight, lanes, width)
        compute, data = conv2d.conv2d_narrow, _blocked(x, width, 3)
    inputs = [_input(data, "x"), _input(packed, "w")]
    got, rule = run(inputs, compute(*inputs, shape, outside), [data, packed], target)
    assert rule == ("window" if depthwise else "conv2d")
    n, blocks, height, width_, _ = got.shape
    plain = got.transpose(0, 1, 4, 2, 3).reshape(n, blocks * lanes, height, width_)[:, :outputs]
    np.testing.assert_array_equal(plain, _expected(x, weight, shape, outside))


SHAPES = {
    "3x3": (32, 32, (9, 11), (3, 3), conv2d.Conv2dShape((1, 1), (1,) * 4, (1, 1), 1)),
    "3x3, odd channels": (19, 21, (9, 11), (3, 3), conv2d.Conv2dShape((1, 1), (1,) * 4, (1, 1), 1)),
    "7x7 of stride 2, first layer": (
        3,
        40,
        (21, 23),
        (7, 7),
        conv2d.Conv2dShape((2, 2), (3,) * 4, (1, 1), 1),
    ),
    "1x1": (48, 64, (7, 7), (1, 1), conv2d.Conv2dShape((1, 1), (0,) * 4, (1, 1), 1)),
    "dilated": (16, 16, (9, 9), (3, 3), conv2d.Conv2dShape((1, 1), (2, 1, 3, 2), (2, 2), 1)),
    "groups": (64, 32, (6, 6), (3, 3), conv2d.Conv2dShape((1, 1), (1,) * 4, (1, 1), 2)),
    "depthwise": (40, 40, (9, 17), (3, 3), conv2d.Conv2dShape((1, 1), (1,) * 4, (1, 1), 40)),
    "depthwise of stride 2": (32, 32, (9, 9), (5, 5), conv2d.Conv2dShape((2, 2), (2,) * 4, (1, 1), 32)),
}


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("name", SHAPES)
def test_convolutions(target, dtype, name):
    for outside in (0, 7):
        _check_convolution(cpu(target), dtype, *SHAPES[name], outside)


@settings(max_examples=15, deadline=None)
@given(
    channels=st.integers(1, 40),
    outputs=st.integers(1, 40),
    height=st.integers(3, 9),
    width=st.integers(3, 33),
    stride=st.integers(1, 2),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    batch=st.integers(1, 2),
)
def test_convolutions_of_any_size(channels, outputs, height, width, stride, padding, batch):
    shape = conv2d.Conv2dShape((stride, stride), padding, (1, 1), 1)
    _check_convolution(
        load("host"), "uint8", channels, outputs, (height, width), (3, 3), shape, 200, batch=batch
    )


def _check_dense(target, dtype, rows, depth, outputs):
    lanes = lanes_of(target)
    x, weight = _bytes((*rows, depth), dtype), _bytes((depth, outputs), "int8")
    packed = dense.pack_narrow_dense_weights(weight, lanes)
    inputs = [_input(x, "x"), _input(packed, "w")]
    got, rule = run(inputs, dense.dense_narrow(*inputs, outputs), [x, packed], target)
    assert rule == "matmul"
    np.testing.assert_array_equal(got, x.astype("int64") @ weight.astype("int64"))


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize(("rows", "depth", "outputs"), [((1,), 512, 40), ((3, 50), 64, 33), ((197,), 36, 64)])
def test_dense_layers(target, dtype, rows, depth, outputs):
    _check_dense(cpu(target), dtype, rows, depth, outputs)


@settings(max_examples=12, deadline=None)
@given(rows=st.integers(1, 40), quads=st.integers(1, 12), outputs=st.integers(1, 70))
def test_dense_layers_of_any_size(rows, quads, outputs):
    _check_dense(load("host"), "uint8", (rows,), 4 * quads, outputs)
