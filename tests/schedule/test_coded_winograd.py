"""Winograd's convolutions whose weights are codes, against PyTorch in float64."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te

from compiler.compress.weights import quantize_weights
from compiler.ir.constants import array_of
from compiler.passes.coded_weights import CodedWeights, coded_weights
from compiler.passes.kernels.layout import pack_array
from compiler.passes.kernels.winograd import SIZES
from compiler.passes.small_convolutions import coded_convolution
from compiler.schedule.tiles import Tile
from compiler.schedule.winograd import Decisions
from compiler.target import load
from tests.passes.test_small_convolutions import QUANTIZERS
from tests.schedule.convolutions import expected, geometry
from tests.schedule.kernels import cpu, lanes_of, random, run, runnable

FLOATS = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
ERROR = {2: 1e-6, 4: 5e-6}
"""The error of one layer over its output's range, by m: that of weights transformed at compile time."""


def _weights(name, outputs, inputs):
    values = random(outputs, inputs, 3, 3)
    if name in FLOATS:
        return CodedWeights(values.astype(FLOATS[name]), np.ones((1, 1, 1, 1), "float32"))
    found = coded_weights(quantize_weights(values, QUANTIZERS[name], 0, 1).expr(), lambda expr: expr)
    if found is None:  # several operators: bound one by one in a function
        return _bound(values, QUANTIZERS[name])
    return found


def _bound(values, quantizer):
    from tests.passes.graphs import graph

    expr = quantize_weights(values, quantizer, 0, 1).expr()
    mod = graph(lambda emit, x: emit(expr), x=(1,))
    bound = {each.var: each.value for each in mod["main"].body.blocks[0].bindings}
    last = list(bound.values())[-1]
    return coded_weights(last.fields[0] if hasattr(last, "fields") else last, lambda e: bound.get(e, e))


def _check(target, name, m, data, outputs, padding=(1, 1, 1, 1), decisions=None):
    lanes, shape = lanes_of(target), geometry(padding=padding)
    x, weights = random(*data), _weights(name, outputs, data[1])
    made = coded_convolution(weights, shape, lanes, lanes, m)
    arrays = [pack_array(x, lanes), *map(array_of, made.constants)]
    inputs = [te.placeholder(a.shape, str(a.dtype), f"x{n}") for n, a in enumerate(arrays)]
    got, rule = run(inputs, made.compute(*inputs), arrays, target, decisions)
    assert rule == "winograd"
    if made.scale is not None:
        got = got * array_of(made.scale)
    images, blocks, height, width, _ = got.shape
    plain = got.transpose(0, 1, 4, 2, 3).reshape(images, blocks * lanes, height, width)[:, :outputs]
    exact = expected(x, weights.values, shape).numpy()
    # The range of few outputs says little: each sums 9 products a channel.
    size = np.sqrt(9 * data[1] * np.square(weights.values.astype("float64")).mean())
    spread = max(exact.max() - exact.min(), 6 * size)
    assert np.abs(plain - exact).max() <= ERROR[m] * spread


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("name", [*QUANTIZERS, *FLOATS])
def test_every_coding(target, name):
    _check(cpu(target), name, 4, (1, 20, 9, 13), 33)


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize(
    ("data", "outputs", "padding"),
    [
        ((2, 16, 11, 5), 16, (0, 0, 0, 0)),
        ((1, 9, 10, 8), 7, (0, 2, 1, 0)),
        ((1, 16, 3, 3), 40, (0, 0, 0, 0)),
        ((1, 8, 1, 6), 24, (1, 1, 1, 1)),
    ],
    ids=str,
)
def test_odd_shapes(m, data, outputs, padding):
    _check(load("host"), "int8", m, data, outputs, padding)


@settings(max_examples=6, deadline=None)
@given(
    name=st.sampled_from([*QUANTIZERS, *FLOATS]),
    m=st.sampled_from(SIZES),
    size=st.tuples(st.integers(3, 20), st.integers(3, 20)),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
)
def test_any_size(name, m, size, inputs, outputs):
    _check(load("host"), name, m, (1, inputs, *size), outputs)


@pytest.mark.parametrize("tile", [Tile(1, 1), Tile(4, 3), Tile(5, 2)], ids=str)
def test_every_tile_computes_the_same(tile):
    target = load("host")
    outputs = 5 * lanes_of(target)
    _check(target, "int4 in groups", 4, (2, 12, 9, 7), outputs, decisions=Decisions(tile))
