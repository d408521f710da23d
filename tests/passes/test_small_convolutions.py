"""Convolutions with coded weights in the blocked layout."""

import numpy as np
import pytest
from tvm import relax

from compiler.compress.scheme import Binary, Linear, Log2, PerChannel, PerGroup
from compiler.compress.weights import quantize_weights
from compiler.ir.rewriter import is_call
from compiler.passes.block_layout import block_layout
from compiler.passes.lift_conv1d import lift_conv1d
from compiler.passes.lower_weight_only import lower_weight_only
from tests.passes.graphs import assert_same_numbers, const, graph, operators, random

R = relax.op

QUANTIZERS = {
    "int8": Linear(8, granularity=PerChannel()),
    "int4 in groups": Linear(4, granularity=PerGroup(8)),
    "int4 in groups across blocks": Linear(4, granularity=PerGroup(6)),
    "log2": Log2(),
    "binary": Binary(),
}


def _coded(name, *shape):
    return quantize_weights(random(*shape), QUANTIZERS[name], 0, 1)


def _convolution(name, channels, outputs, kernel=3, **options):
    weights = _coded(name, outputs, channels, kernel, kernel)

    def build(emit, x):
        y = emit(R.nn.conv2d(x, emit(weights.expr()), **options))
        return R.nn.relu(emit(R.add(y, const(1, outputs, 1, 1))))

    return graph(build, x=(2, channels, 8, 9))


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize(("channels", "outputs"), [(3, 8), (12, 8), (10, 6)])
def test_convolutions_read_codes(name, channels, outputs):
    before = _convolution(name, channels, outputs, padding=1)
    after = block_layout(4)(lower_weight_only(4)(before))
    assert "coded_conv2d" in operators(after)
    assert "nn.conv2d" not in operators(after)
    assert_same_numbers(before, after, random(2, channels, 8, 9))


@pytest.mark.parametrize("options", [{"kernel": 1}, {"strides": 2}, {"dilation": 2, "padding": [1, 2, 0, 1]}])
def test_convolutions_of_every_geometry(options):
    before = _convolution("log2", 12, 8, **options)
    after = block_layout(4)(lower_weight_only(4)(before))
    assert_same_numbers(before, after, random(2, 12, 8, 9))


def test_convolutions_in_one_dimension():
    weights = _coded("int4 in groups", 8, 16, 3)
    before = graph(lambda emit, x: R.nn.conv1d(x, emit(weights.expr()), padding=1), x=(1, 16, 20))
    after = block_layout(4)(lift_conv1d(lower_weight_only(4)(before)))
    assert "coded_conv2d" in operators(after)
    assert_same_numbers(before, after, random(1, 16, 20))


@pytest.mark.parametrize(("name", "bits"), [("int8", 8), ("int4 in groups", 4), ("log2", 4), ("binary", 1)])
def test_codes_take_as_little_room_as_their_bits(name, bits):
    after = block_layout(4)(lower_weight_only(4)(_convolution(name, 32, 8)))
    calls = [binding.value for binding in after["main"].body.blocks[0].bindings]
    (coded,) = [c for c in calls if is_call(c, "relax.call_tir") and c.args[0].name_hint == "coded_conv2d"]
    words = coded.args[1].fields[1].value.numpy()
    assert words.nbytes == 8 * 32 * 9 * bits // 8


@pytest.mark.parametrize("name", QUANTIZERS)
def test_large_images_take_winograd_s_method(name):
    weights = _coded(name, 16, 24, 3, 3)

    def build(emit, x):
        y = emit(R.nn.conv2d(x, emit(weights.expr()), padding=1))
        return R.nn.relu(emit(R.add(y, const(1, 16, 1, 1))))

    before = graph(build, x=(1, 24, 20, 21))
    after = block_layout(4)(lower_weight_only(4)(before))
    assert "coded_winograd_conv2d" in operators(after)
    assert "coded_conv2d" not in operators(after)
    assert_same_numbers(before, after, random(1, 24, 20, 21))


def test_depthwise_and_grouped_convolutions_stay_in_float():
    for groups in (8, 2):
        weights = _coded("int8", 8, 8 // groups, 3, 3)
        before = graph(
            lambda emit, x, w=weights, g=groups: R.nn.conv2d(x, emit(w.expr()), groups=g), x=(1, 8, 6, 6)
        )
        assert operators(lower_weight_only(4)(before)) == ["dequantize", "nn.conv2d"]


def test_rubbish_past_the_last_channel_is_not_summed():
    """Signs have no zero: the weights of lanes past the last channel take another coding."""
    weights = _coded("binary", 8, 6, 1, 1)

    def build(emit, x):
        y = emit(R.add(emit(R.nn.conv2d(x, const(6, 6, 1, 1))), relax.const(np.float32(1))))
        return R.nn.conv2d(y, emit(weights.expr()))

    before = graph(build, x=(1, 6, 4, 4))
    assert_same_numbers(before, block_layout(4)(lower_weight_only(4)(before)), random(1, 6, 4, 4))
