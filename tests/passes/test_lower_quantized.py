"""Quantized layers become integer layers that compute the same."""

import numpy as np
import pytest
from tvm import relax

from compiler.passes.lower_quantized import lower_quantized
from compiler.passes.simplify import simplify
from tests.passes.graphs import graph, operators, random, run

R = relax.op


def _scalar(value, dtype="float32"):
    return relax.const(np.array(value, dtype))


def q(emit, x, scale, zero=0, dtype="uint8"):
    """Quantize and dequantize."""
    stored = emit(R.quantize(x, _scalar(scale), _scalar(zero, "int32"), axis=1, out_dtype=dtype))
    return emit(R.dequantize(stored, _scalar(scale), _scalar(zero, "int32"), axis=1))


def w(emit, *shape, axis=0, channels=True):
    """Quantized weights, of one scale or one an output."""
    random_numbers = np.random.default_rng(sum(shape))
    stored = random_numbers.integers(-127, 128, shape).astype("int8")
    scale = random_numbers.uniform(0.001, 0.01, shape[axis] if channels else ()).astype("float32")
    zero = np.zeros(scale.shape, "int8")
    return emit(R.dequantize(relax.const(stored), relax.const(scale), relax.const(zero), axis=axis))


def bias(outputs):
    return relax.const(np.random.default_rng(outputs).uniform(-1, 1, (1, outputs, 1, 1)).astype("float32"))


def layer(emit, x, outputs, inputs, kernel=3, **options):
    options = {"padding": kernel // 2} | options
    weight = w(emit, outputs, inputs // options.get("groups", 1), kernel, kernel)
    return emit(R.add(emit(R.nn.conv2d(x, weight, **options)), bias(outputs)))


def residual(emit, x):
    first = q(emit, emit(R.nn.relu(layer(emit, q(emit, x, 0.03, 128), 8, 6))), 0.05)
    second = layer(emit, first, 8, 8)
    return q(emit, emit(R.nn.relu(emit(R.add(second, first)))), 0.11)


def downsampled(emit, x):
    given = q(emit, x, 0.03, 120)
    return q(emit, emit(R.add(layer(emit, given, 8, 6), layer(emit, given, 8, 6, kernel=1))), 0.2, 99)


def dense(emit, x):
    rows = q(emit, emit(R.reshape(x, (24, 50))), 0.03, 110)
    weight = emit(R.permute_dims(w(emit, 7, 50)))
    added = relax.const(np.linspace(-1, 1, 7, dtype="float32"))
    return q(emit, emit(R.add(emit(R.matmul(rows, weight)), added)), 0.1, 100)


NETS = {
    "a layer": lambda emit, x: q(emit, layer(emit, q(emit, x, 0.03, 128), 8, 6), 0.1, 90),
    "a layer, signed": lambda emit, x: q(
        emit, layer(emit, q(emit, x, 0.03, -3, "int8"), 8, 6), 0.1, 7, "int8"
    ),
    "relu": lambda emit, x: q(emit, emit(R.nn.relu(layer(emit, q(emit, x, 0.03, 128), 8, 6))), 0.1),
    "relu above a zero point": lambda emit, x: q(
        emit, emit(R.nn.relu(layer(emit, q(emit, x, 0.03, 128), 8, 6))), 0.1, 40
    ),
    "relu6": lambda emit, x: q(emit, emit(R.clip(layer(emit, q(emit, x, 0.03, 128), 8, 6), 0, 6)), 0.1),
    "stride, dilation": lambda emit, x: q(
        emit, layer(emit, q(emit, x, 0.03, 128), 8, 6, strides=2, padding=2, dilation=2), 0.1, 90
    ),
    "depthwise": lambda emit, x: q(emit, layer(emit, q(emit, x, 0.03, 128), 6, 6, groups=6), 0.1, 90),
    "groups": lambda emit, x: q(emit, layer(emit, q(emit, x, 0.03, 128), 8, 6, groups=2), 0.1, 90),
    "a residual": residual,
    "two layers added": downsampled,
    "dense": dense,
    "the output of a layer in float": lambda emit, x: layer(emit, q(emit, x, 0.03, 128), 8, 6),
    "max pooling": lambda emit, x: q(
        emit, emit(R.nn.max_pool2d(q(emit, x, 0.03, 128), 3, strides=2, padding=1)), 0.03, 128
    ),
    "concatenation": lambda emit, x: q(
        emit, emit(R.concat([q(emit, x, 0.03, 128), q(emit, emit(R.negative(x)), 0.03, 128)], 1)), 0.03, 128
    ),
    "concatenation of two grids": lambda emit, x: q(
        emit, emit(R.concat([q(emit, x, 0.03, 128), q(emit, x, 0.04, 9)], 1)), 0.03, 128
    ),
    "mean": lambda emit, x: q(emit, emit(R.mean(q(emit, x, 0.03, 128), [2, 3], keepdims=True)), 0.005, 128),
    "moved": lambda emit, x: q(
        emit, emit(R.permute_dims(emit(R.reshape(q(emit, x, 0.03, 128), (2, 6, 100))), [0, 2, 1])), 0.03, 128
    ),
    "another grid": lambda emit, x: q(emit, q(emit, x, 0.03, 128), 0.07, 10),
    "scaled": lambda emit, x: q(emit, emit(R.multiply(q(emit, x, 0.03, 128), bias(6))), 0.02, 100),
}


@pytest.mark.parametrize("name", NETS)
def test_integer_layers_compute_the_same(name):
    before = graph(lambda emit, x: NETS[name](emit, x), x=(2, 6, 10, 10))
    after = simplify(lower_quantized(before))
    expected, got = run(before, random(2, 6, 10, 10)), run(after, random(2, 6, 10, 10))
    if name == "the output of a layer in float":
        np.testing.assert_allclose(got, expected, atol=1e-5 * abs(expected).max())
        return
    # Both round; where a value lies between two bytes either may be right: one quantum, and seldom.
    quantum = np.diff(np.unique(expected)).min()
    assert abs(got - expected).max() <= 1.01 * quantum
    assert (abs(got - expected) > 0.5 * quantum).mean() < 0.01
    assert len(np.unique(expected)) > 10


def _layers(mod):
    found = []
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            name = getattr(getattr(binding.value, "op", None), "name", "")
            if name in ("relax.nn.conv2d", "relax.matmul", "relax.nn.max_pool2d", "relax.concat"):
                found.append((name.removeprefix("relax."), str(binding.var.ty.dtype)))
    return found


@pytest.mark.parametrize("name", [n for n in NETS if n not in ("mean", "moved", "another grid", "scaled")])
def test_layers_and_what_moves_bytes_are_integers(name):
    after = lower_quantized(graph(lambda emit, x: NETS[name](emit, x), x=(2, 6, 10, 10)))
    layers = _layers(after)
    assert layers
    floats = [layer for layer in layers if layer[1] == "float32"]
    assert floats == ([("concat", "float32")] if name == "concatenation of two grids" else [])


def test_between_two_layers_there_is_one_multiplication_and_one_addition():
    def build(emit, x):
        first = q(emit, emit(R.nn.relu(layer(emit, q(emit, x, 0.03), 8, 6))), 0.1)
        return q(emit, emit(R.nn.relu(layer(emit, first, 8, 8))), 0.1)

    after = simplify(lower_quantized(graph(build, x=(2, 6, 10, 10))))
    between = ["nn.conv2d", "astype", "multiply", "add", "quantize"]
    assert operators(after) == ["quantize", *between, *between, "astype", "multiply"]


def test_bytes_that_go_back_to_their_own_grid_are_not_computed():
    after = lower_quantized(graph(NETS["moved"], x=(2, 6, 10, 10)))
    assert operators(after).count("quantize") == 1


@pytest.mark.parametrize("zero", [0, 5])
def test_weights_with_a_zero_point_stay_in_float(zero):
    def build(emit, x):
        stored = relax.const(np.ones((4, 6, 1, 1), "int8"))
        weight = emit(R.dequantize(stored, _scalar(0.1), _scalar(zero, "int8"), axis=0))
        return R.nn.conv2d(q(emit, x, 0.03), weight)

    after = lower_quantized(graph(build, x=(2, 6, 10, 10)))
    assert _layers(after) == [("nn.conv2d", "float32" if zero else "int32")]
