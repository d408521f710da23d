"""Taps that only read padding are cut off."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, tirx

from compiler.passes.trim_kernels import trim_kernels
from tests.passes.graphs import assert_same_numbers, const, graph, random


def _graph(shape, kernel, **options):
    weight = const(3, shape[1], *kernel)
    return graph(lambda emit, x: relax.op.nn.conv2d(x, weight, **options), x=shape)


def _kernels(mod):
    return [
        tuple(int(n) for n in b.value.args[1].ty.shape)[2:]
        for block in mod["main"].body.blocks for b in block.bindings
        if hasattr(b.value, "args") and len(b.value.args) == 2
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rate", "kernel"), [(1, (3, 3)), (6, (3, 3)), (7, (1, 3)), (9, (1, 1)), (36, (1, 1))]
)
def test_a_dilated_convolution_over_a_small_image_keeps_what_it_reads(rate, kernel):
    before = _graph((1, 4, 7, 9), (3, 3), padding=rate, dilation=rate)
    after = trim_kernels(before)
    assert _kernels(after) == [kernel]
    assert_same_numbers(before, after, random(1, 4, 7, 9))


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(1, 6),
    kernel=st.integers(1, 4),
    before=st.integers(0, 9),
    after=st.integers(0, 9),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 5),
)
def test_any_geometry_keeps_its_numbers(size, kernel, before, after, stride, dilation):
    if size + before + after < dilation * (kernel - 1) + 1:
        return
    options = {"padding": [before, 1, after, 1], "strides": [stride, 1], "dilation": [dilation, 1]}
    module = _graph((1, 2, size, 4), (kernel, 3), **options)
    assert_same_numbers(module, trim_kernels(module), random(1, 2, size, 4))


def test_an_image_of_unknown_size_keeps_its_kernel():
    h = tirx.Var("h", "int64")
    assert _kernels(trim_kernels(_graph((1, 2, h, 8), (3, 3), padding=9, dilation=9))) == [(3, 3)]
