"""Quantized layers become integer layers that compute the same."""

import numpy as np
import pytest
from tvm import relax

from compiler.passes.byte_signs import byte_signs
from compiler.passes.lower_quantized import lower_quantized
from compiler.passes.simplify import simplify
from tests.passes.graphs import const, graph, operators, random, run

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


def offset_weights(emit, *shape, axis=0, dtype="uint8", zero=0):
    """Weights with zero points far from the middle of their type: their differences take nine bits."""
    generator, info = np.random.default_rng(sum(shape)), np.iinfo(dtype)
    stored = generator.integers(info.min, info.max + 1, shape).astype(dtype)
    scale = generator.uniform(0.001, 0.01, shape[axis]).astype("float32")
    zeros = (zero + generator.integers(-3, 4, shape[axis])).clip(info.min, info.max).astype("int32")
    return emit(R.dequantize(relax.const(stored), relax.const(scale), relax.const(zeros), axis=axis))


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


def transposed(emit, x, weights=w, zero=128, **options):
    options = {"strides": (2, 2), "padding": (1, 1)} | options
    given = q(emit, x, 0.03, zero)
    made = emit(R.nn.conv2d_transpose(given, weights(emit, 6, 8, 4, 4, axis=1), **options))
    return q(emit, emit(R.nn.relu(emit(R.add(made, bias(8))))), 0.1)


def normalized(emit, x):
    statistics = [relax.const(np.linspace(low, 1, 8, dtype="float32")) for low in (0.5, -1, -0.5, 0.3)]
    made = emit(R.divide(layer(emit, q(emit, x, 0.03, 128), 8, 6), bias(8)))
    return q(emit, emit(relax.TupleGetItem(emit(R.nn.batch_norm(made, *statistics, axis=1)), 0)), 0.9, 90)


def joined(emit, x):
    given = q(emit, x, 0.03, 128)
    parts = [layer(emit, given, 8, 6), emit(R.nn.relu(layer(emit, given, 4, 6, kernel=1))), given]
    return q(emit, emit(R.concat(parts, 1)), 0.1, 90)


def viewed(emit, x):
    made = layer(emit, q(emit, x, 0.03, 128), 8, 6)
    rows = emit(R.permute_dims(emit(R.reshape(made, (2, 8, 100))), [0, 2, 1]))
    return q(emit, rows, 0.1, 90)


def activated(function):
    return lambda emit, x: q(emit, emit(function(layer(emit, q(emit, x, 0.03, 128), 8, 6))), 0.02, 60)


def padded_average(emit, x, zero, count):
    given = q(emit, x, 0.03, zero)
    pooled = R.nn.avg_pool2d(given, 3, strides=2, padding=1, count_include_pad=count)
    return q(emit, emit(pooled), 0.0213, 90)


def offset_convolution(emit, x, groups=1, dtype="uint8", zero=7):
    weights = offset_weights(emit, 6, 6 // groups, 3, 3, dtype=dtype, zero=zero)
    made = emit(R.nn.conv2d(q(emit, x, 0.03, 120), weights, padding=1, groups=groups))
    return q(emit, emit(R.add(made, bias(6))), 0.6, 100)


def offset_dense(emit, x):
    rows = q(emit, emit(R.reshape(x, (24, 50))), 0.03, 110)
    weights = emit(R.permute_dims(offset_weights(emit, 7, 50, zero=20)))
    return q(emit, emit(R.matmul(rows, weights)), 0.6, 100)


def heads(emit, x, shape=(2, 3, 25, 8), zero=128, dtype="uint8"):
    return q(emit, emit(R.reshape(x, shape)), 0.03, zero, dtype)


def attention(emit, x):
    """Two products, a softmax between: queries, keys and values are the same but for their levels."""
    queries, keys, values = (heads(emit, x, zero=zero) for zero in (120, 128, 140))
    scores = emit(R.matmul(queries, emit(R.permute_dims(keys, [0, 1, 3, 2]))))
    weights = q(emit, emit(R.nn.softmax(emit(R.multiply(scores, _scalar(0.2))), -1)), 1 / 255)
    rows = emit(R.permute_dims(emit(R.matmul(weights, values)), [0, 2, 1, 3]))
    return q(emit, emit(R.reshape(rows, (2, 25, 24))), 0.02, 110)


def product(emit, x, left, right, order=None, **options):
    first, second = heads(emit, x, left, **options), heads(emit, x, right, 99)
    second = second if order is None else emit(R.permute_dims(second, order))
    return q(emit, emit(R.matmul(first, second)), 0.3, 100)


NETS = {
    "attention": attention,
    "a product of activations": lambda emit, x: product(emit, x, (6, 10, 20), (6, 20, 10)),
    "a product of signed activations": lambda emit, x: product(
        emit, x, (6, 10, 20), (6, 20, 10), zero=-7, dtype="int8"
    ),
    "a product with one matrix": lambda emit, x: product(emit, x, (2, 3, 10, 20), (60, 20), [1, 0]),
    "a product that broadcasts": lambda emit, x: product(emit, x, (2, 1, 60, 10), (1, 12, 10, 10)),
    "a product of one row": lambda emit, x: product(emit, x, (40, 1, 30), (40, 30, 1)),
    "weights with zero points": lambda emit, x: offset_convolution(emit, x, zero=128),
    "weights far from zero": offset_convolution,
    "signed weights far from zero": lambda emit, x: offset_convolution(emit, x, dtype="int8", zero=-100),
    "groups of weights far from zero": lambda emit, x: offset_convolution(emit, x, groups=2, zero=255),
    "depthwise weights far from zero": lambda emit, x: offset_convolution(emit, x, groups=6),
    "dense weights far from zero": offset_dense,
    "transposed": transposed,
    "transposed above zero": lambda emit, x: transposed(emit, emit(R.nn.relu(x)), zero=0),
    "transposed, overlapping": lambda emit, x: transposed(emit, x, strides=(3, 1), padding=(0, 2)),
    "transposed weights far from zero": lambda emit, x: transposed(emit, x, offset_weights),
    "batch norm": normalized,
    "layers joined": joined,
    "a layer seen as rows": viewed,
    "a layer pooled": lambda emit, x: q(
        emit, emit(R.nn.max_pool2d(layer(emit, q(emit, x, 0.03, 128), 8, 6), 2, strides=2)), 0.1, 90
    ),
    "hard swish": activated(lambda v: R.multiply(v, R.clip(R.add(v, _scalar(3)), 0, 6))),
    "leaky relu": activated(R.nn.leakyrelu),
    "sigmoid": activated(R.sigmoid),
    "less": activated(lambda v: R.subtract(v, bias(8))),
    "average with zeros around": lambda emit, x: padded_average(emit, emit(R.nn.relu(x)), 0, True),
    "average with a zero point around": lambda emit, x: padded_average(emit, x, 128, True),
    "average of what is inside": lambda emit, x: padded_average(emit, x, 128, False),
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


ONE_OF_EACH_RULE = [
    "attention", "average with a zero point around", "concatenation", "dense", "depthwise", "hard swish",
    "mean", "a residual", "transposed", "two layers added", "weights far from zero",
]  # fmt: skip


@pytest.mark.parametrize("name", ONE_OF_EACH_RULE)
def test_every_target_rounds_the_same_numbers(name):
    """Bit for bit, whichever sign its bytes have: a byte that differs would make others differ after it."""
    before = graph(lambda emit, x: NETS[name](emit, x), x=(2, 6, 10, 10))
    signs = [lower_quantized(byte_signs(unsigned=unsigned)(before)) for unsigned in (True, False)]
    x = random(2, 6, 10, 10)
    np.testing.assert_array_equal(*[run(each, x) for each in signs])


def _layers(mod):
    found = []
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            name = getattr(getattr(binding.value, "op", None), "name", "")
            if name in (
                "relax.nn.conv2d",
                "relax.matmul",
                "relax.nn.max_pool2d",
                "relax.concat",
                "relax.nn.conv2d_transpose",
            ):
                found.append((name.removeprefix("relax."), str(binding.var.ty.dtype)))
    return found


NO_LAYERS = {
    "mean", "moved", "another grid", "scaled", "average with zeros around",
    "average with a zero point around", "average of what is inside",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(NETS.keys() - NO_LAYERS))
def test_layers_and_what_moves_bytes_are_integers(name):
    after = lower_quantized(graph(lambda emit, x: NETS[name](emit, x), x=(2, 6, 10, 10)))
    layers = _layers(after)
    assert layers
    assert [layer for layer in layers if layer[1] == "float32"] == []


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


def test_symmetric_weights_are_multiplied_once():
    for name, count in [("weights with zero points", 2), ("transposed", 1), ("depthwise", 1)]:
        after = lower_quantized(graph(NETS[name], x=(2, 6, 10, 10)))
        assert operators(after).count("nn.conv2d") == count


def test_bytes_are_rounded_where_layers_give_them():
    """What joins, moves or chooses elements comes after: no float is written on the way."""
    for name, last in [("layers joined", "concat"), ("a layer seen as rows", "permute_dims")]:
        after = lower_quantized(graph(NETS[name], x=(2, 6, 10, 10)))
        found = operators(after)
        assert found.index(last) > max(i for i, each in enumerate(found) if each == "quantize")


def _scales_on_inputs(emit, x):
    stored = relax.const(np.ones((4, 6, 1, 1), "int8"))
    scale, zero = relax.const(np.ones(6, "float32")), relax.const(np.zeros(6, "int8"))
    return R.nn.conv2d(q(emit, x, 0.03), emit(R.dequantize(stored, scale, zero, axis=1)))


STAY = {
    "scales along what is summed": _scales_on_inputs,
    "float weights": lambda emit, x: R.nn.conv2d(q(emit, x, 0.03), const(4, 6, 1, 1)),
    "a float input": lambda emit, x: R.nn.conv2d(x, w(emit, 4, 6, 1, 1)),
    "a product with a float": lambda emit, x: R.matmul(q(emit, x, 0.03), x),
    "a product of a float": lambda emit, x: R.matmul(x, q(emit, x, 0.03)),
    "a product with a vector": lambda emit, x: R.matmul(
        q(emit, x, 0.03), emit(R.squeeze(q(emit, emit(R.mean(x, [0, 1, 2], keepdims=True)), 0.003)))
    ),
    "dilated and transposed": lambda emit, x: R.nn.conv2d_transpose(
        q(emit, x, 0.03), w(emit, 6, 4, 3, 3, axis=1), dilation=2
    ),
}


@pytest.mark.parametrize("name", STAY)
def test_what_stays_in_float(name):
    before = graph(STAY[name], x=(2, 6, 10, 10))
    after = lower_quantized(before)
    assert {dtype for _, dtype in _layers(after)} == {"float32"}
    x = random(2, 6, 10, 10)
    expected = run(before, x)
    np.testing.assert_allclose(run(after, x), expected, atol=1e-5 * abs(expected).max())
