"""Operators that become one kernel."""

from tvm import relax

from compiler.compress.groups import find_groups
from compiler.compress.operators import Kind
from compiler.ir.graph import Graph
from tests.compress.nets import conv, relu, residual
from tests.passes.graphs import const, graph

R = relax.op


def _groups(build, **shapes):
    found = Graph(graph(build, **shapes))
    return [
        (group.kind, [found.definition(member).op.name.removeprefix("relax.") for member in group.members])
        for group in find_groups(found)
    ]


def test_bias_shortcut_and_activation_belong_to_the_layer():
    assert _groups(residual, x=(1, 3, 8, 8)) == [
        (Kind.LAYER, ["nn.conv2d", "add", "nn.relu"]),
        (Kind.LAYER, ["nn.conv2d", "add", "nn.relu"]),
        (Kind.LAYER, ["nn.conv2d", "add", "add", "nn.relu"]),
        (Kind.LAYER, ["nn.conv2d", "add"]),
    ]


def test_an_activation_that_reads_its_input_twice_belongs_to_the_layer():
    def hard_swish(emit, x):
        y = conv(emit, x, 3, 8)
        gate = emit(R.clip(emit(R.add(y, relax.const(3.0, "float32"))), 0, 6))
        return R.multiply(y, emit(R.divide(gate, relax.const(6.0, "float32"))))

    assert [len(members) for _, members in _groups(hard_swish, x=(1, 3, 8, 8))] == [6]


def test_of_two_layers_that_are_added_the_first_adds():
    def build(emit, x):
        return R.nn.relu(emit(R.add(conv(emit, x, 3, 8), conv(emit, x, 3, 8, kernel=1))))

    assert [len(members) for _, members in _groups(build, x=(1, 3, 8, 8))] == [4, 2]


def test_what_is_read_from_memory_ends_a_group():
    def build(emit, x):
        y = relu(emit, conv(emit, x, 3, 8))
        return R.add(conv(emit, y, 8, 8), y)

    assert [len(members) for _, members in _groups(build, x=(1, 3, 8, 8))] == [3, 3]


def test_outputs_of_the_network_end_a_group():
    def build(emit, x):
        y = conv(emit, x, 3, 8)
        return [y, R.nn.relu(y)]

    assert [len(members) for _, members in _groups(build, x=(1, 3, 8, 8))] == [2, 1]


def test_moves_stand_alone_and_constants_make_a_concatenation_compute():
    def build(emit, x):
        y = relu(emit, emit(R.nn.max_pool2d(x, 2, 2)))
        return R.concat([y, const(1, 3, 4, 4)], 1)

    assert _groups(build, x=(1, 3, 8, 8)) == [
        (Kind.MOVE, ["nn.max_pool2d"]),
        (Kind.ELEMENTWISE, ["nn.relu"]),
        (Kind.MEAN, ["concat"]),
    ]


def test_integers_are_no_tail():
    def build(emit, x):
        y = conv(emit, x, 3, 8)
        return R.add(emit(R.astype(y, "int32")), relax.const(1, "int32"))

    assert _groups(build, x=(1, 3, 8, 8))[1:] == [(Kind.OTHER, ["astype"]), (Kind.ELEMENTWISE, ["add"])]
