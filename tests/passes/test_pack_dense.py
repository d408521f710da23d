import numpy as np
import pytest
import tvm
from tvm import relax

from compiler.passes.kernels.dense import pack_dense_weights
from compiler.passes.pack_dense import pack_dense
from tests.passes.graphs import assert_same_numbers, const, graph, operators, random

R = relax.op


@pytest.mark.parametrize("rows", [(3,), (2, 5), (2, 3, 4)])
@pytest.mark.parametrize("outputs", [8, 6, 7, 2])
def test_a_constant_matrix_is_packed_into_panels(rows, outputs):
    weight = const(outputs, 6)
    before = graph(
        lambda emit, x: R.matmul(x, emit(R.permute_dims(weight))),
        x=(*rows, 6),
    )
    after = pack_dense(4)(before)
    assert operators(after) == ["dense"]
    packed = after["main"].body.blocks[0].bindings[0].value.args[1].fields[1].value.numpy()
    lanes = 2 if outputs == 2 else 4  # the width of fewest vectors
    np.testing.assert_array_equal(packed, pack_dense_weights(weight.value.numpy().T, lanes))
    assert_same_numbers(before, after, random(*rows, 6))


@pytest.mark.parametrize(
    ("left", "right"), [((2, 3, 4), (2, 4, 5)), ((3, 4), (2, 4, 5)), ((2, 1, 3, 4), (6, 4, 5))]
)
def test_products_of_activations_broadcast(left, right):
    before = graph(lambda emit, x, y: R.matmul(x, y), x=left, y=right)
    after = pack_dense(4)(before)
    assert operators(after) == ["matmul"]
    assert_same_numbers(before, after, random(*left), random(*right, seed=2))


@pytest.mark.parametrize("columns", [1, 4, 5, 8, 11])
@pytest.mark.parametrize("rows", [1, 3, 9])
def test_transpositions_become_part_of_the_reads(rows, columns):
    before = graph(
        lambda emit, x, y: R.matmul(
            emit(R.permute_dims(x, [0, 2, 1, 3])), emit(R.permute_dims(y, [0, 2, 3, 1]))
        ),
        x=(2, rows, 3, 6),
        y=(2, columns, 3, 6),
    )
    after = pack_dense(4)(before)
    assert operators(after) == ["matmul"]
    assert_same_numbers(before, after, random(2, rows, 3, 6), random(2, columns, 3, 6, seed=2))


def test_symbolic_rows():
    n = tvm.tirx.Var("n", "int64")
    weight = const(6, 8)
    before = graph(lambda emit, x: R.matmul(x, weight), x=(n, 6))
    assert_same_numbers(before, pack_dense(4)(before), random(5, 6))


@pytest.mark.parametrize("shape", [(4,), (4, 3, 5)])
def test_vectors_and_stacks_of_constants_keep_their_meaning(shape):
    weight = const(*shape)
    inputs = (3, 4) if len(shape) == 1 else (4, 2, 3)
    before = graph(lambda emit, x: R.matmul(x, weight), x=inputs)
    assert_same_numbers(before, pack_dense(4)(before), random(*inputs))
