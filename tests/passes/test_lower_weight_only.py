import numpy as np
import pytest
from tvm import relax

from compiler.compress.scheme import Binary, Linear, Log2, PerChannel, PerGroup, PerTensor
from compiler.compress.weights import quantize_weights
from compiler.ir.rewriter import is_call
from compiler.passes import optimize
from compiler.passes.coded_weights import coded_weights, matrix_of
from compiler.passes.lower_weight_only import lower_weight_only
from compiler.target import load
from tests.passes.graphs import assert_same_numbers, const, graph, operators, random

R = relax.op

QUANTIZERS = {
    "int8": Linear(8, granularity=PerChannel()),
    "int8, one scale": Linear(8, granularity=PerTensor()),
    "int4 in groups": Linear(4, granularity=PerGroup(32)),
    "int4 in groups of 12": Linear(4, granularity=PerGroup(12)),
    "log2": Log2(),
    "binary": Binary(),
}


def _product(quantizer, depth=70, outputs=20, rows=(3,), turned=False):
    values = random(outputs, depth) if turned else random(depth, outputs)
    weights = quantize_weights(values, quantizer, axis=0 if turned else 1, group_axis=1 if turned else 0)

    def build(emit, x):
        weight = emit(weights.expr())
        product = emit(R.matmul(x, emit(R.permute_dims(weight)) if turned else weight))
        return R.nn.relu(emit(R.add(product, const(outputs))))

    return graph(build, x=(*rows, depth)), weights


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_products_read_codes(name, turned):
    before, _ = _product(QUANTIZERS[name], turned=turned)
    after = lower_weight_only(4)(before)
    names = [each for each in operators(after) if each != "nn.pad"]
    scaled = [] if "group" in name else ["multiply"]
    assert names == ["coded_dense", *scaled, "add", "nn.relu"]
    assert_same_numbers(before, after, random(3, 70))


@pytest.mark.parametrize(
    ("name", "bytes_"), [("int8", 64 * 20), ("int4 in groups", 64 * 20 // 2), ("log2", 64 * 20 // 2),
                         ("binary", 64 * 20 // 8)],
)  # fmt: skip
def test_codes_take_as_little_room_as_their_bits(name, bytes_):
    before, _ = _product(QUANTIZERS[name], depth=64)
    call = lower_weight_only(4)(before)["main"].body.blocks[0].bindings[0].value
    assert call.args[1].fields[1].value.numpy().nbytes == bytes_


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_survive_the_whole_pipeline(name):
    """Earlier passes fold constants; none of them may make floats of the codes."""
    before, _ = _product(QUANTIZERS[name])
    after, records = optimize(before, load("host"))
    assert "lower_weight_only" in [record.name for record in records]
    assert any("coded_dense" in each for each in operators(after))
    assert_same_numbers(before, after, random(3, 70))


def test_other_targets_compute_in_float():
    before, _ = _product(QUANTIZERS["int4 in groups"])
    after, _ = optimize(before, load("h100"))
    assert not any("coded" in each or "dequantize" in each for each in operators(after))
    assert_same_numbers(before, after, random(3, 70))


def test_float_and_integer_products_are_left_alone():
    def build(emit, x):
        return R.matmul(x, const(8, 4))

    before = graph(build, x=(3, 8))
    assert operators(lower_weight_only(4)(before)) == ["matmul"]


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("axis", [0, 1])
def test_codes_and_scales_are_found_in_every_form(name, axis):
    values = random(5, 70, 2, 3) if axis == 0 else random(70, 5, 2, 3)
    weights = quantize_weights(values, QUANTIZERS[name], axis, 1 - axis)
    mod = graph(lambda emit, x: R.add(x, emit(weights.expr())), x=values.shape)
    bound = {each.var: each.value for each in mod["main"].body.blocks[0].bindings}
    (added,) = [value for value in bound.values() if is_call(value, "relax.add")]
    found = coded_weights(added.args[1], lambda expr: bound.get(expr, expr))
    np.testing.assert_array_equal(found.values, weights.values)
    assert found.codes.dtype == np.int8


def test_the_longest_groups_are_found():
    scale = np.repeat(np.array([[1, 2], [1, 2], [1, 3], [4, 3]], "float32"), 8, 0)[:30]
    matrix = matrix_of(np.ones((30, 2), "int8"), scale)
    assert matrix.group == 8
    np.testing.assert_array_equal(np.repeat(matrix.scale, 8, 0)[:30], scale)
