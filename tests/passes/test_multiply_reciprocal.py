"""Division by a constant becomes multiplication with its reciprocal."""

import numpy as np
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from compiler.passes.multiply_reciprocal import multiply_reciprocal
from tests.passes.graphs import assert_same_numbers, graph, operators, random


@I.ir_module(s_tir=True)
class Before:
    @R.function
    def main(x: R.Tensor((2, 3), "float32")):
        with R.dataflow():
            y = R.divide(x, R.const(8.0, "float32"))
            R.output(y)
        return y


@I.ir_module(s_tir=True)
class After:
    @R.function
    def main(x: R.Tensor((2, 3), "float32")):
        with R.dataflow():
            y = R.multiply(x, R.const(0.125, "float32"))
            R.output(y)
        return y


def test_a_number():
    tvm.ir.assert_structural_equal(multiply_reciprocal(Before), After)


def test_a_vector_to_one_unit_in_the_last_place():
    values = relax.const(np.array([3, -0.7, 1e20], "float32"))
    before = graph(lambda emit, x: relax.op.divide(x, values), x=(4, 3))
    after = multiply_reciprocal(before)
    assert operators(after) == ["multiply"]
    assert_same_numbers(before, after, random(4, 3))


def test_what_has_no_reciprocal_stays():
    for value in (0.0, 1e-40, 3e38, np.inf):
        divisor = relax.const(np.float32(value))
        before = graph(lambda emit, x, d=divisor: relax.op.divide(x, d), x=(4,))
        assert operators(multiply_reciprocal(before)) == ["divide"]


def test_integers_and_inputs_stay():
    three = relax.const(np.int32(3))
    whole = graph(lambda emit, x: relax.op.divide(emit(relax.op.astype(x, "int32")), three), x=(4,))
    assert "divide" in operators(multiply_reciprocal(whole))
    both = graph(lambda emit, x, y: relax.op.divide(x, y), x=(4,), y=(4,))
    assert operators(multiply_reciprocal(both)) == ["divide"]
