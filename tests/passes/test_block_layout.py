import re

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


def _kinds(mod):
    """Return what `operators` does, without the numbers of several kernels of one kind."""
    return [re.sub(r"(?<=\D)\d+$", "", name) for name in operators(mod)]


def _point(emit, x, channels):
    """Return a pointwise convolution of `x` to `channels`."""
    weight = const(channels, int(x.ty.shape[1]), 1, 1)
    return emit(_conv(x, weight, padding=(0, 0)))


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize(("channels", "groups"), [(10, 5), (26, 13), (12, 3), (24, 3), (40, 5)])
def test_groups_that_share_a_block_are_one_group_of_it(channels, groups, lanes):
    weight = const(channels, channels // groups, 3, 3)
    before = graph(
        lambda emit, x: _point(emit, emit(_conv(_point(emit, x, channels), weight, groups=groups)), 5),
        x=(1, 4, 6, 6),
    )
    after = block_layout(lanes)(before)
    width = channels // groups
    if lanes % width == 0 or width % lanes == 0:
        assert _kinds(after) == [*["pack"] * (lanes == 4), "conv2d", "conv2d", "conv2d", "unpack"]
    assert_same_numbers(before, after, random(1, 4, 6, 6))


def _shuffle(emit, y, groups):
    n, channels, height, width = y.ty.shape
    grouped = emit(R.reshape(y, (n, groups, int(channels) // groups, height, width)))
    return emit(R.reshape(emit(R.permute_dims(grouped, [0, 2, 1, 3, 4])), (n, channels, height, width)))


def _check_one_gather(build, lanes=4, size=(1, 6, 5, 5)):
    """Check that what `build` does to the channels of `x` becomes one gather before anything is unpacked."""
    before = graph(build, x=size)
    after = block_layout(lanes)(before)
    names = _kinds(after)
    assert names.count("gather_channels") == 1
    assert not {"unpack", "concat", "strided_slice"} & set(names[:-1])
    assert_same_numbers(before, after, random(*size))


def test_concatenation_of_whole_blocks_moves_blocks():
    def build(emit, x):
        return R.nn.relu(emit(R.concat([_point(emit, x, 8), _point(emit, x, 5)], 1)))

    before = graph(build, x=(1, 4, 5, 5))
    after = block_layout(4)(before)
    assert _kinds(after) == ["pack", "conv2d", "conv2d", "concat", "nn.relu", "unpack"]
    assert_same_numbers(before, after, random(1, 4, 5, 5))


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("parts", [(6, 5), (3, 8, 2), (7, 1, 9, 20)])
def test_concatenation_of_any_channels_is_a_gather(parts, lanes):
    def build(emit, x):
        y = emit(R.concat([_point(emit, x, part) for part in parts], 1))
        return _point(emit, emit(R.nn.relu(y)), 5)

    _check_one_gather(build, lanes)


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize(
    ("begin", "end", "step"), [(3, 9, 1), (5, 20, 1), (1, 20, 2), (0, 6, 1), (-9, 99, 3)]
)
def test_slices_of_channels_are_gathers(begin, end, step, lanes):
    def build(emit, x):
        y = emit(R.strided_slice(_point(emit, x, 20), [1], [begin], [end], [step]))
        return _point(emit, y, 5)

    _check_one_gather(build, lanes)


def test_slices_of_whole_blocks_move_blocks():
    def build(emit, x):
        y = _point(emit, x, 14)
        ends = [emit(R.strided_slice(y, [1], [begin], [end])) for begin, end in ((4, 12), (8, 14), (0, 14))]
        return _point(emit, emit(R.concat([ends[0], _point(emit, ends[1], 6), ends[2]], 1)), 3)

    before = graph(build, x=(1, 4, 5, 5))
    after = block_layout(4)(before)
    # The gather is the outer one: 6 channels lie before the last 14.
    assert _kinds(after)[1:4] == ["conv2d", "strided_slice", "conv2d"]
    assert _kinds(after).count("gather_channels") == 1
    assert_same_numbers(before, after, random(1, 4, 5, 5))


def test_channels_that_a_slice_leaves_out_do_not_come_back_as_rubbish():
    infinite = np.zeros((1, 12, 1, 1), "float32")
    infinite[:, 7] = np.inf

    def build(emit, x):
        y = emit(R.add(_point(emit, x, 12), relax.const(infinite)))
        return _point(emit, emit(R.strided_slice(y, [1], [0], [6])), 5)

    before = graph(build, x=(1, 4, 5, 5))
    after = block_layout(4)(before)
    assert "gather_channels" in operators(after)
    assert_same_numbers(before, after, random(1, 4, 5, 5))


@pytest.mark.parametrize("sections", [3, [2, 7]])
def test_parts_of_a_split_are_parts_of_one_map(sections):
    def build(emit, x):
        parts = emit(R.split(_point(emit, x, 12), sections, 1))
        return _point(emit, emit(R.concat([emit(parts[2]), emit(parts[0])], 1)), 5)

    before = graph(build, x=(1, 4, 5, 5))
    after = block_layout(8)(before)
    assert _kinds(after) == ["conv2d", "gather_channels", "conv2d", "unpack"]
    assert_same_numbers(before, after, random(1, 4, 5, 5))


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("groups", [2, 3, 4])
def test_a_shuffle_of_channels_is_a_gather(groups, lanes):
    _check_one_gather(lambda emit, x: _point(emit, _shuffle(emit, _point(emit, x, 12), groups), 5), lanes)


def test_stacked_and_interleaved_channels_are_a_gather():
    def build(emit, x):
        parts = [emit(R.expand_dims(_point(emit, x, 6), 2)) for _ in range(2)]
        y = emit(R.reshape(emit(R.concat(parts, 2)), (1, 12, 5, 5)))
        return _point(emit, y, 5)

    _check_one_gather(build)


def _shuffle_units(units, channels=10):
    """Return the units of ShuffleNetV2: one half of the channels passes by, and the halves are shuffled."""

    def build(emit, x):
        y = _point(emit, x, channels)
        for _ in range(units):
            halves = [
                emit(R.strided_slice(y, [1], [start], [start + channels // 2]))
                for start in (0, channels // 2)
            ]
            made = emit(R.nn.relu(_point(emit, halves[1], channels // 2)))
            y = _shuffle(emit, emit(R.concat([halves[0], made], 1)), 2)
        return _point(emit, y, 3)

    return build


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_shuffled_units_gather_only_what_a_convolution_reads(lanes):
    before = graph(_shuffle_units(2), x=(2, 4, 5, 5))
    after = block_layout(lanes)(before)
    unit = ["gather_channels", "conv2d", "nn.relu"]
    assert _kinds(after)[-9:] == [*unit, *unit, "gather_channels", "conv2d", "unpack"]
    assert len(_kinds(after)) <= 11, "a convolution before them, of packed channels if these fill a vector"
    assert_same_numbers(before, after, random(2, 4, 5, 5))


def test_a_gather_of_many_tensors_moves_some_channels_earlier():
    before = graph(_shuffle_units(9, channels=16), x=(1, 4, 5, 5))
    after = block_layout(4)(before)
    functions = {name.name_hint: function for name, function in after.functions_items()}
    gathers = [name for name in operators(after) if name.startswith("gather_channels")]
    assert len(gathers) > 10
    assert max(len(functions[name].params) - 1 for name in gathers) == 4
    assert_same_numbers(before, after, random(1, 4, 5, 5))


def test_a_ghost_module_adds_to_its_gather():
    weight = const(6, 1, 3, 3)

    def build(emit, x):
        y = emit(R.nn.relu(_point(emit, x, 6)))
        ghost = emit(R.nn.relu(emit(_conv(y, weight, groups=6))))
        return R.add(emit(R.concat([y, ghost], 1)), _point(emit, x, 12))

    before = graph(build, x=(1, 4, 5, 5))
    after = block_layout(4)(before)
    assert _kinds(after)[-3:] == ["gather_channels", "add", "unpack"]
    assert_same_numbers(before, after, random(1, 4, 5, 5))


def test_one_reader_gets_blocks_and_another_plain_channels():
    def build(emit, x):
        y = emit(R.concat([_point(emit, x, 6), _point(emit, x, 5)], 1))
        return R.add(_point(emit, y, 11), emit(R.nn.softmax(y, 1)))

    before = graph(build, x=(1, 4, 5, 5))
    after = block_layout(4)(before)
    names = _kinds(after)
    assert names.count("gather_channels") == names.count("concat") == 1
    assert names.count("unpack") == 3, "both parts, and the result"
    assert_same_numbers(before, after, random(1, 4, 5, 5))


def test_a_part_that_is_plain_is_packed():
    def build(emit, x):
        y = emit(R.permute_dims(emit(R.nn.softmax(x, 1)), [0, 1, 3, 2]))
        return _point(emit, emit(R.concat([_point(emit, x, 6), y], 1)), 5)

    before = graph(build, x=(1, 6, 5, 5))
    after = block_layout(4)(before)
    assert _kinds(after)[-3:] == ["gather_channels", "conv2d", "unpack"]
    assert _kinds(after).count("pack") == 2
    assert_same_numbers(before, after, random(1, 6, 5, 5))


def test_a_shuffle_that_only_plain_channels_are_read_of_stays_one():
    before = graph(lambda emit, x: R.nn.softmax(_shuffle(emit, _point(emit, x, 6), 3), 1), x=(1, 4, 5, 5))
    after = block_layout(4)(before)
    assert _kinds(after)[-5:] == ["unpack", "reshape", "permute_dims", "reshape", "nn.softmax"]
    assert_same_numbers(before, after, random(1, 4, 5, 5))


def test_who_reads_plain_channels_does_not_repeat_all_that_made_them():
    def build(emit, x):
        y = emit(R.concat([_point(emit, x, 6), _point(emit, x, 5)], 1))
        return R.nn.softmax(emit(R.concat([_point(emit, x, 3), y], 1)), 1)

    before = graph(build, x=(1, 4, 5, 5))
    after = block_layout(4)(before)
    assert _kinds(after)[-3:] == ["gather_channels", "unpack", "nn.softmax"]
    assert_same_numbers(before, after, random(1, 4, 5, 5))


@pytest.mark.parametrize(
    "operator",
    [
        lambda y: R.concat([y, y], 2),
        lambda y: R.strided_slice(y, [2], [1], [4]),
        lambda y: R.strided_slice(y, [1, 3], [1, 1], [4, 4]),
        lambda y: R.reshape(y, (1, 2, 3, 25)),
        lambda y: R.permute_dims(y, [0, 1, 3, 2]),
    ],
)
def test_what_moves_more_than_channels_unpacks(operator):
    before = graph(lambda emit, x: operator(_point(emit, x, 6)), x=(1, 4, 5, 5))
    after = block_layout(4)(before)
    assert _kinds(after)[:3] == ["pack", "conv2d", "unpack"]
    assert_same_numbers(before, after, random(1, 4, 5, 5))


def test_channels_of_other_types_unpack():
    def build(emit, x):
        parts = [emit(R.astype(_point(emit, x, channels), "int32")) for channels in (6, 5)]
        return R.astype(emit(R.concat(parts, 1)), "float32")

    before = graph(build, x=(1, 4, 5, 5))
    after = block_layout(4)(before)
    assert "gather_channels" not in _kinds(after)
    assert_same_numbers(before, after, random(1, 4, 5, 5))


def test_channels_of_images_whose_size_is_not_known():
    n, h = tvm.tirx.Var("n", "int64"), tvm.tirx.Var("h", "int64")

    def build(emit, x):
        parts = [emit(_conv(x, const(6, 4, 3, 3), strides=(2, 2))) for _ in range(2)]
        return _point(emit, _shuffle(emit, emit(R.concat(parts, 1)), 2), 5)

    before = graph(build, x=(n, 4, h, 7))
    after = block_layout(4)(before)
    assert _kinds(after)[-3:] == ["gather_channels", "conv2d", "unpack"]
    for size in ((1, 4, 8, 7), (3, 4, 5, 7)):
        assert_same_numbers(before, after, random(*size))


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
