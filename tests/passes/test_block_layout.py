import numpy as np
import pytest
import tvm
from tvm import relax

from compiler.passes.block_layout import block_layout
from compiler.passes.kernels.layout import pack_array
from compiler.passes.kernels.winograd import winograd_weights
from tests.passes.graphs import assert_same_numbers, const, graph, operators, random

R = relax.op


def _conv(x, weight, **options):
    return R.nn.conv2d(x, weight, **{"padding": (1, 1), **options})


def test_a_convolution_reads_packed_weights_and_keeps_its_epilogue_blocked():
    first, second, bias = const(8, 3, 3, 3), const(8, 8, 3, 3), const(1, 8, 1, 1)

    def build(emit, x):
        y = emit(R.nn.relu(emit(R.add(emit(_conv(x, first)), bias))))
        return R.add(emit(_conv(y, second)), y)

    before = graph(build, x=(1, 3, 6, 6))
    after = block_layout(4)(before)
    assert operators(after) == ["conv2d", "add", "nn.relu", "conv2d1", "add", "unpack"]
    calls = [binding.value for block in after["main"].body.blocks for binding in block.bindings]
    packed_bias = calls[1].args[1].value.numpy()
    np.testing.assert_array_equal(packed_bias, pack_array(bias.value.numpy(), 4))
    assert packed_bias.shape == (1, 2, 1, 1, 4)
    assert_same_numbers(before, after, random(1, 3, 6, 6))


@pytest.mark.parametrize(
    ("inputs", "weight", "options"),
    [
        ((2, 5, 7, 9), (6, 5, 3, 3), {}),
        ((1, 4, 8, 8), (8, 4, 1, 1), {"padding": (0, 0), "strides": (2, 2)}),
        ((1, 6, 9, 7), (10, 6, 5, 3), {"padding": (2, 1, 0, 3), "strides": (2, 1), "dilation": (1, 2)}),
        ((1, 8, 6, 6), (8, 4, 3, 3), {"groups": 2}),
        ((1, 12, 6, 6), (8, 6, 3, 3), {"groups": 2}),
        ((1, 6, 6, 6), (6, 1, 3, 3), {"groups": 6}),
        ((1, 6, 6, 6), (9, 2, 3, 3), {"groups": 3}),
    ],
)
def test_convolutions_of_every_geometry(inputs, weight, options):
    kernel = const(*weight)
    before = graph(lambda emit, x: _conv(x, kernel, **options), x=inputs)
    after = block_layout(4)(before)
    assert_same_numbers(before, after, random(*inputs))


@pytest.mark.parametrize(
    "operator",
    [
        lambda y: R.nn.max_pool2d(y, (3, 3), (2, 2), (1, 1)),
        lambda y: R.nn.avg_pool2d(y, (3, 3), (2, 2), (1, 1), count_include_pad=True),
        lambda y: R.nn.adaptive_avg_pool2d(y, (2, 3)),
        lambda y: R.mean(y, [2, 3], keepdims=True),
        lambda y: R.mean(y, [-1, -2]),
        lambda y: R.clip(y, 0, 6),
        lambda y: R.nn.silu(y),
        lambda y: R.multiply(y, relax.const(np.array(2, "float32"))),
        lambda y: R.add(y, const(6, 1, 1)),
        lambda y: R.multiply(y, const(1, 1, 6, 6)),
        lambda y: R.image.resize2d(y, (12, 12), method="nearest_neighbor"),
    ],
)
def test_operators_that_stay_blocked(operator):
    weight = const(6, 4, 3, 3)
    before = graph(lambda emit, x: operator(emit(_conv(x, weight))), x=(2, 4, 6, 6))
    after = block_layout(4)(before)
    unpacked = [name for name in operators(after) if name.startswith("unpack")]
    assert len(unpacked) == 1, "the value is unpacked once, at the end"
    assert operators(after).index(unpacked[0]) > 0
    assert_same_numbers(before, after, random(2, 4, 6, 6))


@pytest.mark.parametrize(
    "operator",
    [
        lambda y: R.exp(y),
        lambda y: R.divide(relax.const(np.array(1, "float32")), y),
        lambda y: R.permute_dims(y, [0, 2, 3, 1]),
        lambda y: R.nn.softmax(y, 1),
        lambda y: R.sum(y, [1]),
    ],
)
def test_what_could_make_infinities_of_the_padding_or_sees_the_channels_unpacks_first(operator):
    weight = const(6, 4, 3, 3)
    before = graph(lambda emit, x: operator(emit(_conv(x, weight))), x=(1, 4, 5, 5))
    after = block_layout(4)(before)
    assert operators(after)[:3] == ["pack", "conv2d", "unpack"]
    assert_same_numbers(before, after, random(1, 4, 5, 5))


@pytest.mark.parametrize(("first", "blocked"), [(8, True), (6, False)])
def test_concatenation_of_whole_blocks(first, blocked):
    weights = const(first, 4, 3, 3), const(5, 4, 3, 3)
    before = graph(
        lambda emit, x: R.nn.relu(emit(R.concat([emit(_conv(x, weight)) for weight in weights], 1))),
        x=(1, 4, 5, 5),
    )
    after = block_layout(4)(before)
    assert ("unpack" not in operators(after)[:-1]) == blocked
    assert_same_numbers(before, after, random(1, 4, 5, 5))


def test_broadcast_between_channels_and_gates():
    weight, squeeze = const(8, 4, 3, 3), const(8, 8, 1, 1)

    def build(emit, x):
        y = emit(_conv(x, weight))
        gate = emit(_conv(emit(R.mean(y, [2, 3], keepdims=True)), squeeze, padding=(0, 0)))
        return R.multiply(y, emit(R.sigmoid(gate)))

    before = graph(build, x=(1, 4, 5, 5))
    after = block_layout(4)(before)
    assert operators(after).count("unpack") == 1
    assert_same_numbers(before, after, random(1, 4, 5, 5))


def test_symbolic_batch_and_size():
    n, h = tvm.tirx.Var("n", "int64"), tvm.tirx.Var("h", "int64")
    weight = const(8, 3, 3, 3)
    before = graph(lambda emit, x: R.nn.relu(emit(_conv(x, weight, strides=(2, 2)))), x=(n, 3, h, h))
    after = block_layout(4)(before)
    for size in ((1, 3, 8, 8), (3, 3, 5, 5)):
        assert_same_numbers(before, after, random(*size))


def test_weights_that_are_inputs_stay_as_they_are():
    mod = graph(lambda emit, x, w: _conv(x, w), x=(1, 4, 5, 5), w=(4, 4, 3, 3))
    tvm.ir.assert_structural_equal(block_layout(4)(mod), mod)


@pytest.mark.parametrize(("inputs", "m"), [((1, 16, 12, 12), 4), ((2, 64, 6, 6), 2)])
def test_3x3_convolutions_of_stride_1_that_pay_off_become_winograds(inputs, m):
    channels = inputs[1]
    weight, bias = const(channels, channels, 3, 3), const(1, channels, 1, 1)
    before = graph(lambda emit, x: R.nn.relu(emit(R.add(emit(_conv(x, weight)), bias))), x=inputs)
    after = block_layout(4)(before)
    assert operators(after) == ["pack", "winograd_conv2d", "add", "nn.relu", "unpack"]
    calls = [binding.value for block in after["main"].body.blocks for binding in block.bindings]
    packed = calls[1].args[1].fields[1].value.numpy()
    np.testing.assert_array_equal(packed, winograd_weights(weight.value.numpy(), 4, m))
    assert_same_numbers(before, after, random(*inputs))


@pytest.mark.parametrize(
    ("weight", "options"),
    [
        ((32, 32, 3, 3), {"strides": (2, 2)}),
        ((32, 32, 3, 3), {"dilation": (2, 2), "padding": (2, 2)}),
        ((32, 16, 3, 3), {"groups": 2}),
        ((32, 32, 5, 5), {"padding": (2, 2)}),
        ((32, 32, 3, 1), {"padding": (1, 0)}),
    ],
)
def test_other_convolutions_stay_direct(weight, options):
    kernel = const(*weight)
    before = graph(lambda emit, x: _conv(x, kernel, **options), x=(1, 32, 12, 12))
    after = block_layout(4)(before)
    assert operators(after) == ["pack", "conv2d", "unpack"]
    assert_same_numbers(before, after, random(1, 32, 12, 12))


def test_symbolic_images_stay_direct():
    n, weight = tvm.tirx.Var("n", "int64"), const(32, 32, 3, 3)
    before = graph(lambda emit, x: _conv(x, weight), x=(n, 32, 12, 12))
    after = block_layout(4)(before)
    assert operators(after) == ["pack", "conv2d", "unpack"]
    assert_same_numbers(before, after, random(2, 32, 12, 12))


def test_depthwise_convolutions_have_a_kernel_of_their_own():
    weight = const(8, 1, 3, 3)
    before = graph(lambda emit, x: _conv(x, weight, groups=8), x=(1, 8, 6, 6))
    assert operators(block_layout(4)(before)) == ["pack", "depthwise_conv2d", "unpack"]
