"""Layers of values rounded to 16-bit floats, as layers of these."""

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from compiler.compress.activations import stored
from compiler.compress.floats import FloatGrid
from compiler.compress.scheme import Float
from compiler.ir.constants import constant
from compiler.passes.lower_short_floats import lower_short_floats
from tests.passes.graphs import assert_same_numbers, graph, random


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_layer_multiplies_the_short_floats(dtype):
    grid = FloatGrid(Float(dtype))
    weight = np.array([[0.5, -1.25], [3, 8]], "float32")

    def build(emit, x):
        return emit(relax.op.matmul(stored(emit, x, grid), constant(weight)))

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((4, 2), "float32")):
            with R.dataflow():
                short = R.astype(x, dtype)
                product = R.matmul(short, R.const(weight.astype(grid.dtype), dtype), out_dtype="float32")
                result = (product,)
                R.output(result)
            return result

    after = lower_short_floats((dtype,))(graph(build, x=(4, 2)))
    tvm.ir.assert_structural_equal(after, After)


def _dtype(ty):
    return str(ty.fields[0].dtype if isinstance(ty, relax.TupleType) else ty.dtype)


def _kinds(mod):
    """The operators, each with the dtype of its first operand."""
    values = [b.value for block in mod["main"].body.blocks for b in block.bindings]
    return [(v.op.name.split(".")[-1], _dtype(v.args[0].ty)) for v in values if hasattr(v, "op")]


def test_moves_and_pooling_keep_them_short():
    grid = FloatGrid(Float("bfloat16"))
    weight = grid.decode(grid.encode(random(5, 4, 1, 1)))

    def build(emit, x):
        pooled = emit(relax.op.nn.max_pool2d(stored(emit, x, grid), 2, strides=2))
        turned = emit(relax.op.permute_dims(stored(emit, pooled, grid), [0, 1, 3, 2]))
        return emit(relax.op.nn.conv2d(emit(relax.op.concat([turned, turned], 3)), constant(weight)))

    before = graph(build, x=(1, 4, 6, 8))
    after = lower_short_floats(("bfloat16",))(before)
    assert ("permute_dims", "bfloat16") in _kinds(after)
    assert ("conv2d", "bfloat16") in _kinds(after)
    assert ("concat", "float32") not in _kinds(after)
    assert_same_numbers(before, after, random(1, 4, 6, 8))


def test_weights_of_more_digits_stay():
    grid = FloatGrid(Float("bfloat16"))

    def build(emit, x):
        return emit(
            relax.op.matmul(stored(emit, x, grid), constant(np.full((2, 2), 1 + 2.0**-20, "float32")))
        )

    assert ("matmul", "float32") in _kinds(lower_short_floats(("bfloat16",))(graph(build, x=(4, 2))))
