"""Products of signs against numpy's integers, to the last bit."""

import numpy as np
import pytest
import torch
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te

from compiler.build.tile_functions import PIPELINE
from compiler.passes.kernels import binary
from compiler.passes.kernels.conv2d import Conv2dShape
from compiler.schedule.apply import schedule_kernel
from compiler.schedule.vector_math import register
from compiler.target import load
from tests.schedule.kernels import cpu, lanes_of, random, run, runnable
from tests.schedule.test_integer import _blocked


def _signs(*shape):
    """Random signs, with a row of each of the two extremes."""
    signs = np.random.default_rng().choice([-1, 1], shape).astype("int8")
    signs[0], signs[-1] = -1, 1
    return signs


def _values(*shape):
    """Random floats, some of them zeros of both signs, infinite, or the least that there are."""
    given = random(*shape)
    special = np.random.default_rng().choice(np.array([0, -0.0, np.inf, -np.inf, 1e-45, -1e-45], "f4"), shape)
    return np.where(np.random.default_rng().random(shape) < 0.1, special, given).astype("float32")


def _run(compute, arrays, target):
    inputs = [te.placeholder(a.shape, str(a.dtype), f"x{n}") for n, a in enumerate(arrays)]
    return run(inputs, compute(*inputs), arrays, target)


def _check_dense(target, rows, depth, outputs):
    x, signs = _values(*rows, depth), _signs(depth, outputs)
    lanes = binary.sign_lanes(depth, lanes_of(target))
    padded = np.pad(x, [(0, 0)] * len(rows) + [(0, -depth % (32 * lanes))])
    words, rule = _run(lambda v: binary.sign_words(v, lanes), [padded], target)
    assert rule == "signs"
    packed = binary.pack_sign_matrix(signs, lanes, lanes_of(target))
    got, rule = _run(lambda a, b: binary.xnor_dense(a, b, depth, outputs), [words, packed], target)
    assert rule == "matmul"
    np.testing.assert_array_equal(got, np.where(x >= 0, 1, -1) @ signs.astype("int64"))


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize(("rows", "depth", "outputs"), [((1,), 768, 40), ((2, 19), 100, 33), ((31,), 1, 5)])
def test_dense_layers(target, rows, depth, outputs):
    _check_dense(cpu(target), rows, depth, outputs)


@settings(max_examples=12, deadline=None)
@given(rows=st.integers(1, 40), depth=st.integers(1, 700), outputs=st.integers(1, 70))
def test_dense_layers_of_any_size(rows, depth, outputs):
    _check_dense(load("host"), (rows,), depth, outputs)


def test_no_bits_are_wasted_where_a_narrower_vector_fits():
    assert [binary.sign_lanes(depth, 16) for depth in (512, 768, 64, 100, 33)] == [16, 8, 2, 4, 2]


def _check_convolution(target, channels, outputs, size, kernel, shape, *, blocked, batch=1):
    lanes = lanes_of(target)
    x, signs = _values(batch, channels, *size), _signs(outputs, channels, *kernel)
    given = _blocked(x, lanes, -3) if blocked else x
    words, _ = _run(lambda v: binary.sign_image(v, channels), [given], target)
    edges = binary.borders(signs, size, shape, lanes)
    arrays = [words, binary.pack_sign_filters(signs, lanes), edges.base, edges.rows, edges.columns]
    got, rule = _run(lambda *v: binary.xnor_conv2d(*v, shape), arrays, target)
    assert rule == "conv2d"
    n, blocks, height, width, _ = got.shape
    plain = got.transpose(0, 1, 4, 2, 3).reshape(n, blocks * lanes, height, width)[:, :outputs]
    top, left, bottom, right = shape.padding
    wide = np.pad(np.where(x >= 0, 1.0, -1.0), ((0, 0), (0, 0), (top, bottom), (left, right)))
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(wide), torch.from_numpy(signs.astype("float64")),
        stride=shape.strides, dilation=shape.dilation,
    )  # fmt: skip
    np.testing.assert_array_equal(plain, expected.numpy())


SHAPES = {
    "3x3": (64, 32, (9, 11), (3, 3), Conv2dShape((1, 1), (1,) * 4, (1, 1), 1)),
    "odd channels": (45, 21, (9, 11), (3, 3), Conv2dShape((1, 1), (1, 0, 2, 1), (1, 1), 1)),
    "1x1": (33, 40, (7, 7), (1, 1), Conv2dShape((1, 1), (0,) * 4, (1, 1), 1)),
    "stride 2, much padding": (16, 16, (6, 7), (5, 5), Conv2dShape((2, 2), (4,) * 4, (1, 1), 1)),
    "dilated": (3, 16, (9, 9), (3, 3), Conv2dShape((1, 1), (2, 1, 3, 2), (2, 2), 1)),
}


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("name", SHAPES)
def test_convolutions_have_exact_borders(target, name):
    for blocked in (True, False):
        _check_convolution(cpu(target), *SHAPES[name], blocked=blocked)


@settings(max_examples=10, deadline=None)
@given(
    channels=st.integers(1, 70),
    outputs=st.integers(1, 40),
    size=st.tuples(st.integers(3, 9), st.integers(3, 20)),
    stride=st.integers(1, 2),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    batch=st.integers(1, 2),
)
def test_convolutions_of_any_size(channels, outputs, size, stride, padding, batch):
    shape = Conv2dShape((stride, stride), padding, (1, 1), 1)
    _check_convolution(load("host"), channels, outputs, size, (3, 3), shape, blocked=True, batch=batch)


def test_each_target_counts_bits_by_its_instruction():
    """A vector of counts at once: LLVM must not fall back to scalars."""
    register()
    for name, instruction in (("znver4", "vpopcntd"), ("rpi4", "cnt\t"), ("x86-64-v3", "vpshufb")):
        target = load(name)
        lanes = lanes_of(target)
        words, weight = te.placeholder((4, 8), "uint32"), te.placeholder((2, 8, lanes), "uint32")
        function = te.create_prim_func([words, weight, binary.xnor_dense(words, weight, 256, 2 * lanes)])
        scheduled, _ = schedule_kernel(function, target)
        module = tvm.IRModule({"kernel": scheduled.with_attr("global_symbol", "kernel")})
        library = tvm.tirx.build(module, target.tvm_target(), pipeline=PIPELINE)
        assert instruction in library.inspect_source("s"), name
