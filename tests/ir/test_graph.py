"""Who makes and who reads each value."""

import tvm
from tvm import relax

from compiler.ir.graph import Graph
from tests.passes.graphs import const, graph

R = relax.op


def _names(variables):
    return [str(var.name) for var in variables]


def test_readers_and_operands():
    def build(emit, x, y):
        a = emit(R.add(x, y))
        return R.multiply(emit(R.nn.relu(a)), a)

    found = Graph(graph(build, x=(2, 3), y=(2, 3)))
    added, relu, product = found.values
    assert _names(found.inputs) == ["x", "y"]
    assert found.operands(added) == found.inputs
    assert found.readers(added) == [relu, product]
    assert found.readers(product) == []
    assert found.outputs == [product]
    assert found.definition(relu).op.name == "relax.nn.relu"
    assert found.definition(found.inputs[0]) is None
    assert found.operands(found.inputs[0]) == []


def test_tuples_are_seen_through():
    def build(emit, x):
        halves = emit(R.split(x, 2, 1))
        first, second = (emit(relax.TupleGetItem(halves, i)) for i in range(2))
        return R.concat([second, first, const(1, 2)], 1)

    found = Graph(graph(build, x=(1, 6)))
    first, second, joined = found.values
    assert found.definition(first).op.name == "relax.split"
    assert found.operands(first) == found.inputs
    assert found.readers(found.inputs[0]) == [first, second]
    assert found.operands(joined)[:2] == [second, first]
    assert isinstance(found.operands(joined)[2], tvm.ir.GenericConst)


def test_a_value_read_twice_has_one_reader():
    found = Graph(graph(lambda emit, x: R.multiply(x, x), x=(2, 3)))
    assert found.readers(found.inputs[0]) == found.values
    assert not found.has_control_flow
