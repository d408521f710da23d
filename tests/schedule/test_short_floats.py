"""Layers of 16-bit floats, summed in float32, against numpy in float64."""

import ml_dtypes
import numpy as np
import pytest

from compiler.passes.kernels import conv2d, dense
from compiler.target import load
from tests.schedule.kernels import cpu, lanes_of, run, runnable
from tests.schedule.test_integer import SHAPES, _blocked, _expected, _input

DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}


def _floats(shape, dtype):
    """Normal random numbers of a wide range of exponents; products of denormal ones may be zero."""
    rng = np.random.default_rng()
    return (rng.normal(size=shape) * 2.0 ** rng.integers(-6, 7, shape)).astype(DTYPES[dtype])


def _close(got, expected, size):
    """Each sum within what float32 loses over `size`, the sum of magnitudes (Higham 2002, section 4.2)."""
    assert got.dtype == np.float32
    assert (abs(got - expected) <= 2e-6 * size).all()


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_convolutions(target, dtype, name):
    target = cpu(target)
    channels, outputs, size, kernel, shape = SHAPES[name]
    lanes = lanes_of(target)
    x, weight = (
        _floats((2, channels, *size), dtype),
        _floats((outputs, channels // shape.groups, *kernel), dtype),
    )
    if shape.groups == channels:
        packed = conv2d.pack_depthwise_weights(weight, lanes).astype("float32")
        data = _blocked(x, lanes, 3)
        inputs = [_input(data, "x"), _input(packed, "w")]
        compute = conv2d.depthwise_conv2d(*inputs, shape)
    else:
        width = 4 if channels <= 4 else lanes
        packed, data = conv2d.pack_narrow_weights(weight, lanes, width), _blocked(x, width, 3)
        inputs = [_input(data, "x"), _input(packed, "w")]
        compute = conv2d.conv2d_narrow(*inputs, shape, 0)
    got, rule = run(inputs, compute, [data, packed], target)
    assert rule == ("window" if shape.groups == channels else "conv2d")
    n, blocks, height, width_, _ = got.shape
    plain = got.transpose(0, 1, 4, 2, 3).reshape(n, blocks * lanes, height, width_)[:, :outputs]
    wide = [array.astype("float64") for array in (x, weight)]
    _close(plain, _expected(*wide, shape, 0), _expected(*map(abs, wide), shape, 0))


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "depth", "outputs"), [((1,), 512, 40), ((3, 50), 62, 33), ((197,), 36, 64)])
def test_dense_layers(target, dtype, rows, depth, outputs):
    target = cpu(target)
    x, weight = _floats((*rows, depth), dtype), _floats((depth, outputs), dtype)
    packed = dense.pack_narrow_dense_weights(weight, lanes_of(target))
    inputs = [_input(x, "x"), _input(packed, "w")]
    got, rule = run(inputs, dense.dense_narrow(*inputs, outputs), [x, packed], target)
    assert rule == "matmul"
    wide = [array.astype("float64") for array in (x, weight)]
    _close(got, wide[0] @ wide[1], abs(wide[0]) @ abs(wide[1]))


def test_the_processor_s_own_instruction_is_used_where_there_is_one():
    from compiler.schedule.dot_product import instruction

    named = {
        name: instruction(load(name), "bfloat16") for name in ("znver4", "x86-64-v4", "x86-64-v3", "rpi5")
    }
    assert named == {"znver4": "vdpbf16ps", "x86-64-v4": "widened", "x86-64-v3": "widened", "rpi5": "widened"}
