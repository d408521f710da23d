import numpy as np
import pytest
import tvm
from tvm import relax

from compiler.passes.simplify import simplify
from tests.passes.graphs import const, graph, operators, random, run

R = relax.op


def _zero(dtype="float32"):
    return relax.const(np.array(0, dtype))


@pytest.mark.parametrize(
    "useless",
    [
        lambda x: R.astype(x, "float32"),
        lambda x: R.reshape(x, (2, 3, 4)),
        lambda x: R.permute_dims(x, [0, 1, 2]),
        lambda x: R.broadcast_to(x, (2, 3, 4)),
        lambda x: R.add(x, _zero()),
        lambda x: R.add(_zero(), x),
        lambda x: R.subtract(x, relax.const(np.zeros((3, 4), "float32"))),
        lambda x: R.multiply(x, relax.const(np.ones((1, 4), "float32"))),
        lambda x: R.divide(x, relax.const(np.array(1, "float32"))),
        lambda x: R.concat([x], 1),
        lambda x: R.nn.pad(x, [0] * 6),
    ],
)
def test_removes_what_does_nothing(useless):
    before = graph(lambda emit, x: R.nn.relu(emit(useless(x))), x=(2, 3, 4))
    expected = graph(lambda emit, x: R.nn.relu(x), x=(2, 3, 4))
    tvm.ir.assert_structural_equal(simplify(before), expected)


@pytest.mark.parametrize(
    "needed",
    [
        lambda x: R.astype(x, "float16"),
        lambda x: R.reshape(x, (2, 12)),
        lambda x: R.permute_dims(x, [1, 0, 2]),
        lambda x: R.add(x, relax.const(np.zeros((5, 1, 1, 1), "float32"))),
        lambda x: R.subtract(_zero(), x),
        lambda x: R.divide(x, relax.const(np.array(3, "float32"))),
        lambda x: R.divide(x, _zero()),
        lambda x: R.nn.pad(x, [0, 0, 0, 0, 0, 1]),
    ],
)
def test_keeps_what_does_something(needed):
    mod = graph(lambda emit, x: R.negative(emit(needed(x))), x=(2, 3, 4))
    tvm.ir.assert_structural_equal(simplify(mod), mod)


def test_transpositions_and_reshapes_in_a_row_become_one():
    before = graph(lambda emit, x: R.permute_dims(emit(R.permute_dims(x, [1, 2, 0])), [1, 2, 0]), x=(2, 3, 4))
    expected = graph(lambda emit, x: R.permute_dims(x, [2, 0, 1]), x=(2, 3, 4))
    tvm.ir.assert_structural_equal(simplify(before), expected)
    before = graph(lambda emit, x: R.reshape(emit(R.reshape(x, (6, 4))), (8, 3)), x=(2, 3, 4))
    tvm.ir.assert_structural_equal(simplify(before), graph(lambda emit, x: R.reshape(x, (8, 3)), x=(2, 3, 4)))


def test_division_by_a_power_of_two_is_a_multiplication():
    before = graph(lambda emit, x: R.divide(x, relax.const(np.array(0.125, "float32"))), x=(2, 3))
    expected = graph(lambda emit, x: R.multiply(x, relax.const(np.array(8, "float32"))), x=(2, 3))
    tvm.ir.assert_structural_equal(simplify(before), expected)


def test_a_field_of_a_tuple_just_built():
    mod = graph(lambda emit, x, y: R.negative(emit(emit(relax.Tuple([x, y]))[1])), x=(2,), y=(3,))
    assert operators(simplify(mod)) == ["negative"]
    after = simplify(mod)["main"]
    assert after.body.blocks[0].bindings[0].value.args[0].same_as(after.params[1])


def test_symbolic_shapes_are_compared_as_symbols():
    n = tvm.tirx.Var("n", "int64")
    before = graph(lambda emit, x: R.nn.relu(emit(R.reshape(x, (n, 4)))), x=(n, 4))
    assert operators(simplify(before)) == ["nn.relu"]


def test_constants_added_in_a_row_are_added_at_once():
    first, second = const(4, 1), const(3, 1, 1, seed=1)
    before = graph(lambda emit, x: R.add(second, emit(R.add(x, first))), x=(3, 4, 5))
    after = simplify(before)
    assert operators(after) == ["add"]
    # The sum of two constants is rounded once more.
    np.testing.assert_allclose(run(after, random(3, 4, 5)), run(before, random(3, 4, 5)), atol=1e-6)


def test_a_mask_added_between_two_reshapes_is_added_without_them():
    bias, mask = const(1, 2, 3, 3), const(1, 4, 1, 3, 3, seed=1)

    def windows(emit, x):
        split = emit(R.reshape(emit(R.add(x, bias)), (2, 4, 2, 3, 3)))
        return R.reshape(emit(R.add(split, mask)), (8, 2, 3, 3))

    before = graph(windows, x=(8, 2, 3, 3))
    after = simplify(before)
    assert operators(after) == ["add"]
    np.testing.assert_allclose(run(after, random(8, 2, 3, 3)), run(before, random(8, 2, 3, 3)), atol=1e-6)


def test_a_sum_that_others_read_stays():
    def build(emit, x):
        first = emit(R.add(x, const(4)))
        return R.multiply(first, emit(R.add(first, const(4, seed=1))))

    before = graph(build, x=(3, 4))
    tvm.ir.assert_structural_equal(simplify(before), before)


@pytest.mark.parametrize("padding", [0, [1, 0, 2, 1]])
def test_zeros_around_the_input_of_a_convolution_become_its_padding(padding):
    weight = const(4, 3, 3, 3)
    before = graph(
        lambda emit, x: R.nn.conv2d(
            emit(R.nn.pad(x, [0, 0, 0, 0, 0, 1, 2, 3])), weight, strides=2, padding=padding
        ),
        x=(1, 3, 8, 9),
    )
    after = simplify(before)
    assert operators(after) == ["nn.conv2d"]
    np.testing.assert_array_equal(run(after, random(1, 3, 8, 9)), run(before, random(1, 3, 8, 9)))


@pytest.mark.parametrize(
    ("widths", "value"), [([0, 0, 0, 0, 1, 1, 1, 1], 1.0), ([0, 0, 0, 1, 0, 0, 0, 0], 0.0)]
)
def test_other_padding_before_a_convolution_stays(widths, value):
    weight = const(4, 3 + widths[3], 3, 3)
    before = graph(
        lambda emit, x: R.nn.conv2d(emit(R.nn.pad(x, widths, pad_value=value)), weight), x=(1, 3, 8, 9)
    )
    tvm.ir.assert_structural_equal(simplify(before), before)
