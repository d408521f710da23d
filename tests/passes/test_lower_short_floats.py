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
from compiler.ir.rewriter import is_call
from compiler.passes.block_layout import block_layout
from compiler.passes.kernels.narrow import SHORT_FLOATS
from compiler.passes.lower_short_floats import lower_short_floats, with_dot_products
from compiler.passes.lower_weight_only import lower_weight_only
from compiler.schedule.dot_product import instruction
from compiler.target import load, names
from tests.passes.graphs import assert_same_numbers, graph, operators, random


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


def _without_dot_products(mod):
    return block_layout(4)(lower_weight_only(4)(lower_short_floats(())(mod)))


@pytest.mark.parametrize("dtype", SHORT_FLOATS)
def test_without_dot_products_only_weights_are_short(dtype):
    """What comes between a rounded value and a layer, and only moves it, is seen through."""
    grid = FloatGrid(Float(dtype))
    kernel, matrix = (grid.decode(grid.encode(random(*shape))) for shape in ((8, 16, 3, 3), (8, 5)))

    def build(emit, x):
        pooled = emit(relax.op.nn.max_pool2d(stored(emit, x, grid), 2, strides=2))
        joined = emit(relax.op.concat([pooled, stored(emit, pooled, grid)], 1))
        deep = emit(relax.op.nn.relu(emit(relax.op.nn.conv2d(joined, constant(kernel), padding=1))))
        rows = stored(emit, emit(relax.op.mean(deep, [2, 3])), grid)
        return relax.op.matmul(emit(relax.op.reshape(rows, (2, 8))), constant(matrix))

    before = graph(build, x=(2, 8, 6, 8))
    after = _without_dot_products(before)
    calls = [b.value for block in after["main"].body.blocks for b in block.bindings]
    kernels = {c.args[0].name_hint: c for c in calls if is_call(c, "relax.call_tir")}
    found = [kernels[name].args[1].fields for name in ("coded_conv2d", "coded_dense")]
    assert [str(data.ty.dtype) for data, *_ in found] == ["float32", "float32"]
    assert [weight.value.numpy().nbytes for _, weight, *_ in found] == [2 * kernel.size, 2 * 8 * 8]
    assert_same_numbers(before, after, random(2, 8, 6, 8))


def test_without_dot_products_other_layers_stay():
    """Weights of more digits, depthwise ones, and those of values that were not rounded."""
    grid = FloatGrid(Float("float16"))
    depthwise, plain = (grid.decode(grid.encode(random(*shape))) for shape in ((4, 1, 3, 3), (6, 4, 1, 1)))

    def build(emit, x):
        deep = emit(relax.op.nn.conv2d(stored(emit, x, grid), constant(depthwise), groups=4))
        unrounded = emit(relax.op.nn.conv2d(deep, constant(plain)))
        return relax.op.nn.conv2d(stored(emit, unrounded, grid), constant(random(3, 6, 1, 1)))

    before = graph(build, x=(1, 4, 6, 6))
    assert lower_short_floats(())(before) is not None
    assert "call_pure_packed" not in operators(lower_short_floats(())(before))
    assert_same_numbers(before, _without_dot_products(before), random(1, 4, 6, 6))


def test_the_types_with_dot_products_are_the_schedule_s():
    targets = [target for target in map(load, names()) if target.kind == "cpu"]
    assert {with_dot_products(target) for target in targets} == {(), ("bfloat16",)}
    for target in targets:
        for dtype in SHORT_FLOATS:
            assert (instruction(target, dtype) != "widened") == (dtype in with_dot_products(target))
