"""Matrix products that are quantized at run time, as integer products."""

import numpy as np
import pytest
from tvm import relax

from compiler.compress.activations import at_run_time
from compiler.compress.scheme import Linear, PerToken, scheme_named
from compiler.compress.weights import quantize_weights
from compiler.ir.constants import constant
from compiler.passes.lower_dynamic import lower_dynamic
from compiler.target import load
from tests.passes.graphs import graph, run

R = relax.op
SCHEME = scheme_named("int8-dynamic")


def _weights(depth, outputs):
    values = np.random.default_rng().normal(size=(depth, outputs)).astype("float32")
    return quantize_weights(values, SCHEME.weights, 1, 0)


def _net(weights, linear):
    def build(emit, x):
        return emit(R.matmul(at_run_time(emit, x, linear), emit(weights.expr())))

    return build


def _lowered(mod, *, unsigned=True):
    with load("host").tvm_target():
        return lower_dynamic(unsigned=unsigned)(mod)


def _kernels(mod):
    return {variable.name_hint for variable in mod.get_global_vars()} - {"main"}


def _operators(mod):
    values = [b.value for block in mod["main"].body.blocks for b in block.bindings]
    return [value.op.name for value in values if isinstance(value, relax.Call) and hasattr(value.op, "name")]


def _rows(shape):
    """Normal random rows of very different sizes, one of zeros and one of one sign."""
    x = np.random.default_rng().normal(size=shape) * 10.0 ** np.arange(-3, shape[-2] - 3)[:, None]
    x[..., 0, :], x[..., 1, :] = 0, abs(x[..., 1, :])
    return x.astype("float32")


def _reference(x, weights, linear):
    """The product in float64 of what both sides are rounded to."""
    axis = -1 if isinstance(linear.granularity, PerToken) else None
    low, high = (
        np.asarray(end, "float32") for end in (x.min(axis, keepdims=True), x.max(axis, keepdims=True))
    )
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scale = np.maximum((high - low) * np.float32(1 / 255), np.float32(2.0**-63))
    zero = np.rint(-low / scale)
    codes = np.clip(np.rint(x * (np.float32(1) / scale)) + zero, 0, 255)
    assert (zero >= 0).all()
    assert (zero <= 255).all()
    return ((codes - zero) * scale).astype("float64") @ weights.values.astype("float64")


@pytest.mark.parametrize("unsigned", [True, False])
@pytest.mark.parametrize("shape", [(2, 6, 40), (7, 33)])
@pytest.mark.parametrize("granularity", ["token", "tensor"])
def test_products_are_of_integers(unsigned, shape, granularity):
    linear = SCHEME.activations if granularity == "token" else Linear(8, signed=False, symmetric=False)
    weights = _weights(shape[-1], 24)
    before = graph(_net(weights, linear), x=shape)
    after = _lowered(before, unsigned=unsigned)
    expected = {"quantize_rows", "rescale_rows"} | ({"row_levels"} if granularity == "token" else set())
    assert _kernels(after) == expected
    assert "relax.dequantize" not in _operators(after)
    assert "relax.matmul" in _operators(after)
    x = _rows(shape)
    reference = _reference(x, weights, linear)
    # float32 rounds the scales' product and the result.
    np.testing.assert_allclose(run(after, x), reference, rtol=1e-5, atol=1e-6 * abs(reference).max())


def test_layers_that_read_one_value_share_its_codes():
    first, second = _weights(16, 8), _weights(16, 12)

    def build(emit, x):
        rounded = at_run_time(emit, x, SCHEME.activations)
        outputs = [emit(R.matmul(rounded, emit(weights.expr()))) for weights in (first, second)]
        return emit(R.concat(outputs, 1))

    after = _lowered(graph(build, x=(5, 16)))
    calls = [op for op in _operators(after) if op == "relax.call_tir"]
    assert len(calls) == 4, "levels, codes and one rescaling a layer"


def test_scales_of_another_origin_are_taken_as_they_are():
    weights = _weights(16, 8)

    def build(emit, x):
        scale = emit(R.multiply(emit(R.max(emit(R.abs(x)), axis=1)), constant(np.float32(1 / 100))))
        zero = constant(np.full(5, 3, "int32"))
        codes = emit(R.quantize(x, scale, zero, axis=0, out_dtype="int8"))
        rounded = emit(R.dequantize(codes, scale, zero, axis=0, out_dtype="float32"))
        return emit(R.matmul(rounded, emit(weights.expr())))

    before = graph(build, x=(5, 16))
    after = _lowered(before)
    assert _kernels(after) == {"quantize_rows", "rescale_rows"}
    x = np.random.default_rng().normal(size=(5, 16)).astype("float32")
    scale = abs(x).max(1, keepdims=True) * np.float32(1 / 100)
    codes = np.clip(np.rint(x * (np.float32(1) / scale)) + 3, -128, 127)
    expected = ((codes - 3) * scale).astype("float64") @ weights.values.astype("float64")
    np.testing.assert_allclose(run(after, x), expected, rtol=1e-5, atol=1e-5)


def test_products_of_floats_stay():
    def build(emit, x):
        return emit(R.matmul(x, constant(np.ones((16, 4), "float32"))))

    after = _lowered(graph(build, x=(5, 16)))
    assert not _kernels(after)
