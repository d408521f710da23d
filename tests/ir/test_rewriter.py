"""The hooks of the rewriter: what a function takes, what stands for an input, what it returns."""

import numpy as np
from tvm import relax

from compiler.ir.rewriter import Rewriter
from tests.passes.graphs import graph, random, run

R = relax.op


class Scaled(Rewriter):
    """Multiplies the input by a new one, and also returns the value of the first binding."""

    name = "Scaled"

    def __init__(self, first):
        super().__init__()
        self.first = first
        self.factor = relax.Var("factor", relax.TensorType([1], "float32"))

    def inputs(self, params):
        return [*params, self.factor]

    def begin(self, params):
        self.replace(params[0], self.emit(R.multiply(params[0], self.factor)))

    def rewrite(self, expr):
        return expr

    def finish(self, value):
        return relax.Tuple([*self.definition(value).fields, self.new(self.first)])


def test_inputs_are_added_and_replaced_and_outputs_added():
    before = graph(lambda emit, x: R.negative(emit(R.nn.relu(x))), x=(2, 3))
    first = before["main"].body.blocks[0].bindings[0].var
    after = Scaled(first).run(before)
    x = random(2, 3)
    np.testing.assert_array_equal(run(after, x, np.array([-2], "float32")), -np.maximum(-2 * x, 0))
    assert len(after["main"].ret_ty.fields) == 2
    assert [str(param.name) for param in after["main"].params] == ["x", "factor"]
