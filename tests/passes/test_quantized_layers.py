"""What is said of products of two activations: integers, or why not."""

import numpy as np
import pytest
from tvm import relax, tirx

from compiler.passes.lower_quantized import lower_quantized
from compiler.passes.quantized_layers import layers_in_float, weights_in_float
from tests.passes.graphs import graph
from tests.passes.test_lower_quantized import heads, product, q

R = relax.op


def _at_run_time(emit, x):
    scale = emit(R.max(x))
    zero = relax.const(0, "int32")
    return emit(R.dequantize(emit(R.quantize(x, scale, zero, axis=0, out_dtype="int8")), scale, zero, axis=0))


def _deep(emit, x):
    wide = emit(R.broadcast_to(emit(R.reshape(x, (600, 1))), (600, 40000)))
    return R.matmul(q(emit, wide, 0.1), q(emit, emit(R.permute_dims(wide)), 0.1))


CASES = {
    "of bytes": (lambda emit, x: product(emit, x, (20, 30), (30, 20)), None),
    "of scores": (
        lambda emit, x: R.matmul(heads(emit, x, (20, 30)), emit(R.reshape(x, (30, 20)))),
        "one of the two activations that it multiplies is not quantized",
    ),
    "at run time": (
        lambda emit, x: R.matmul(_at_run_time(emit, emit(R.reshape(x, (20, 30)))), heads(emit, x, (30, 20))),
        "the scales of the two activations that it multiplies are computed at run time",
    ),
    "too deep": (_deep, "its sums may not fit 32 bits"),
}


@pytest.mark.parametrize("name", CASES)
def test_products_of_activations(name):
    build, reason = CASES[name]
    before = graph(build, x=(1, 6, 10, 10))
    first, *rest = layers_in_float(before, lower_quantized(before))
    assert first == f"{int(reason is None)} of 1 layers compute in integers"
    assert rest == ([] if reason is None else [f"in float: 1 matrix product ({reason})"])


def test_columns_that_are_known_at_run_time_only():
    n = tirx.Var("n", "int64")

    def build(emit, x):
        given = q(emit, x, 0.1)
        return R.matmul(given, emit(R.permute_dims(given)))

    before = graph(build, x=(n, 8))
    _, why = layers_in_float(before, lower_quantized(before))
    assert why == ("in float: 1 matrix product (the sizes of its right operand are known at run time only)")


def test_rows_may_be_known_at_run_time_only():
    n = tirx.Var("n", "int64")
    before = graph(lambda emit, x, y: R.matmul(q(emit, x, 0.1), q(emit, y, 0.1)), x=(n, 8), y=(8, 16))
    assert layers_in_float(before, lower_quantized(before)) == ("1 of 1 layers compute in integers",)


def _coded(emit, shape, axis, largest=7):
    codes = np.random.default_rng(0).integers(-largest, largest, shape, endpoint=True).astype("int8")
    scale, zero = relax.const(np.full(shape[axis], 0.1, "float32")), relax.const(0, "int32")
    return emit(R.dequantize(relax.const(codes), scale, zero, axis=axis))


def test_weights_that_no_kernel_reads_as_codes_are_found():
    """Those of depthwise and transposed convolutions; plain ones and matrices have kernels."""
    from compiler.passes.lower_weight_only import lower_weight_only

    def build(emit, x):
        x = emit(R.nn.conv2d(x, _coded(emit, (8, 8, 1, 1), 0)))
        x = emit(R.nn.conv2d(x, _coded(emit, (8, 1, 3, 3), 0), groups=8))
        x = emit(R.nn.conv2d_transpose(x, _coded(emit, (8, 4, 2, 2), 1), strides=(2, 2)))
        x = emit(R.nn.conv2d(x, relax.const(np.ones((4, 4, 1, 1), "float32") / 2)))
        return R.matmul(emit(R.mean(x, (2, 3))), _coded(emit, (4, 6), 1))

    before = graph(build, x=(1, 8, 10, 10))
    assert [name for name, _ in weights_in_float(before)].count("relax.matmul") == 1
    found = weights_in_float(lower_weight_only(16)(before))
    assert found == (("relax.nn.conv2d", (8, 1, 3, 3)), ("relax.nn.conv2d_transpose", (8, 4, 2, 2)))


def test_signs_of_groups_are_floats():
    from compiler.passes.lower_binary import lower_binary

    def build(groups):
        def made(emit, x):
            one, other = relax.const(np.float32(1)), relax.const(np.float32(-1))
            sign = emit(R.where(emit(R.greater_equal(x, relax.const(np.float32(0)))), one, other))
            size = emit(R.mean(emit(R.abs(x))))
            codes = np.where(np.random.default_rng(0).normal(size=(8, 8 // groups, 3, 3)) < 0, -1, 1)
            zero = relax.const(0, "int32")
            weights = emit(R.dequantize(relax.const(codes.astype("int8")), relax.const(np.float32(2)), zero))
            return R.nn.conv2d(emit(R.multiply(sign, size)), weights, groups=groups)

        return lower_binary(16)(graph(made, x=(1, 8, 10, 10)))

    assert weights_in_float(build(1)) == ()
    assert weights_in_float(build(8)) == (("relax.nn.conv2d", (8, 1, 3, 3)),)
