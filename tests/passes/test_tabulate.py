"""Functions of one byte become tables that hold what floats would give, to the last bit."""

import numpy as np
import pytest
import torch
import tvm
from tvm import relax

from compiler.passes.kernels.quantize import legalizations
from compiler.passes.tabulate import tabulate
from compiler.target import load
from tests.passes.graphs import const, graph, operators, random
from tests.passes.test_lower_quantized import _scalar, layer, q

R = relax.op


def run(mod, *arrays):
    """Run `mod` with our own rounding, which is PyTorch's; TVM's rounds half away from zero."""
    mod = relax.transform.LegalizeOps(legalizations(cpu=False))(mod)
    machine = relax.VirtualMachine(relax.build(mod, tvm.target.Target({"kind": "llvm"})), tvm.cpu())
    return [each.numpy() for each in machine["main"](*[tvm.runtime.tensor(array) for array in arrays])]


def tabulated(mod, target="znver4"):
    return tabulate(load(target))(mod)


def lookups(mod):
    return sum(name.startswith("lookup") for name in operators(mod))


def of_codes(build, given, made, scale=0.05, zero=None, out=(0.02, 10)):
    """Return a module that takes all codes of `given` and gives what `build` makes of them as `made`."""
    zero = {"uint8": 120, "int8": -3}[given] if zero is None else zero
    x = relax.Var("x", relax.TensorType([4, 64], given))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            value = builder.emit(R.dequantize(x, _scalar(scale), _scalar(zero, "int32"), axis=1))
            value = builder.emit(build(builder.emit, value))
            step, point = _scalar(out[0]), _scalar(out[1], "int32")
            value = builder.emit(R.quantize(value, step, point, axis=1, out_dtype=made))
            output = builder.emit_output(relax.Tuple([value]))
        builder.emit_func_output(output)
    return builder.finalize()


def hard_swish(emit, x):
    gate = emit(R.clip(emit(R.add(x, _scalar(3))), 0, 6))
    return R.multiply(emit(R.multiply(x, gate)), _scalar(1 / 6))


FUNCTIONS = {
    "requantized": (lambda emit, x: R.astype(x, "float32"), lambda x: x),
    "relu6": (lambda emit, x: R.clip(x, 0, 6), lambda x: x.clip(0, 6)),
    "leaky relu": (lambda emit, x: R.nn.leakyrelu(x, 0.1), lambda x: torch.nn.functional.leaky_relu(x, 0.1)),
    "hard swish": (hard_swish, lambda x: x * (x + 3).clip(0, 6) * np.float32(1 / 6)),
    "sigmoid": (lambda emit, x: R.sigmoid(x), torch.sigmoid),
    "tanh": (lambda emit, x: R.tanh(x), torch.tanh),
    "gelu": (lambda emit, x: R.nn.gelu(x), torch.nn.functional.gelu),
    "silu": (lambda emit, x: R.nn.silu(x), torch.nn.functional.silu),
    "silu, written out": (lambda emit, x: R.multiply(x, emit(R.sigmoid(x))), lambda x: x * torch.sigmoid(x)),
    "exp, which overflows": (
        lambda emit, x: R.exp(emit(R.multiply(x, _scalar(30)))),
        lambda x: torch.exp(x * 30),
    ),
    "two roundings": (
        lambda emit, x: R.tanh(q(emit, emit(R.sigmoid(x)), 1 / 256)),
        lambda x: torch.tanh(torch.fake_quantize_per_tensor_affine(torch.sigmoid(x), 1 / 256, 0, 0, 255)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("given", "made"), [("uint8", "uint8"), ("int8", "int8"), ("uint8", "int8")])
def test_all_codes_to_the_last_bit(name, given, made):
    build, reference = FUNCTIONS[name]
    before = of_codes(build, given, made)
    after = tabulated(before)
    assert len(operators(after)) == lookups(after) == 1
    codes = np.arange(256, dtype="uint8").view(given).reshape(4, 64)
    (got,), (expected,) = run(after, codes), run(before, codes)
    np.testing.assert_array_equal(got, expected)
    zero = {"uint8": 120, "int8": -3}[given]
    value = torch.from_numpy((codes.astype("float32") - zero) * np.float32(0.05))
    info = np.iinfo(made)
    told = torch.fake_quantize_per_tensor_affine(reference(value), 0.02, 10, int(info.min), int(info.max))
    np.testing.assert_array_equal((got.astype("float32") - 10) * np.float32(0.02), told.numpy())


def test_ties_are_rounded_as_floats_are():
    """Half of the codes lie between two of the output, as float32 has it."""
    before = of_codes(lambda emit, x: R.negative(x), "uint8", "uint8", scale=0.1, zero=128, out=(0.2, 100))
    codes = np.arange(256, dtype="uint8").reshape(4, 64)
    np.testing.assert_array_equal(run(tabulated(before), codes)[0], run(before, codes)[0])


def test_what_changes_nothing_goes():
    def build(emit, x):
        given = q(emit, x, 0.1)
        return [layer(emit, given, 8, 6), q(emit, emit(R.nn.relu(given)), 0.1)]

    mod = graph(build, x=(2, 6, 10, 10))
    after = tabulated(mod)
    assert lookups(after) == 0
    assert operators(after).count("quantize") == 1


def shared(function):
    """Bytes that a convolution reads, and `function` of them."""

    def build(emit, x):
        made = q(emit, layer(emit, q(emit, x, 0.03, 128), 6, 6), 0.05, 120)
        other = q(emit, emit(function(emit, made)), 0.02, 3)
        return R.add(layer(emit, made, 6, 6), other)

    return graph(build, x=(2, 6, 10, 10))


COSTS = [
    ("znver4", R.sigmoid, True), ("x86-64-v4", R.sigmoid, True), ("x86-64-v3", R.sigmoid, True),
    ("rpi4", R.sigmoid, True), ("znver4", R.nn.relu, True), ("x86-64-v4", R.nn.relu, False),
    ("x86-64-v3", R.nn.relu, False), ("rpi4", R.nn.relu, True),
]  # fmt: skip


@pytest.mark.parametrize(("target", "function", "table"), COSTS)
def test_what_is_tabulated_depends_on_what_it_costs(target, function, table):
    after = tabulated(shared(lambda emit, x: function(x)), target)
    assert lookups(after) == int(table)


def test_hard_swish_is_worth_sixteen_shuffles():
    for target, table in [("x86-64-v4", 1), ("x86-64-v3", 0)]:
        assert lookups(tabulated(shared(hard_swish), target)) == table


STAY = {
    "in the registers of a layer": lambda emit, x: q(
        emit, emit(R.sigmoid(q(emit, layer(emit, q(emit, x, 0.03, 128), 6, 6), 0.05, 120))), 0.02
    ),
    "of what the layer's kernel rounds twice": lambda emit, x: q(
        emit, hard_swish(emit, q(emit, layer(emit, q(emit, x, 0.03, 128), 6, 6), 0.05, 120)), 0.02
    ),
    "of two inputs": lambda emit, x: q(
        emit, emit(R.multiply(q(emit, x, 0.1, 9), emit(R.sigmoid(q(emit, x, 0.2)))), ), 0.02
    ),
    "by channel": lambda emit, x: [
        q(emit, emit(R.multiply(given := q(emit, x, 0.1), const(6, 1, 1))), 0.02), given
    ],
    "float": lambda emit, x: [R.sigmoid(given := q(emit, x, 0.1)), given],
}  # fmt: skip


@pytest.mark.parametrize("name", STAY)
def test_what_stays(name):
    mod = graph(lambda emit, x: STAY[name](emit, x), x=(2, 6, 10, 10))
    assert lookups(tabulated(mod)) == 0


def test_a_function_of_bytes_that_are_kept_is_of_those():
    """What a layer's kernel gives is rounded twice in it; the second function is one of the second bytes."""

    def build(emit, x):
        made = q(emit, layer(emit, q(emit, x, 0.03, 128), 6, 6), 0.05, 120)
        gate = q(emit, emit(R.sigmoid(made)), 1 / 256)
        return [q(emit, emit(R.tanh(gate)), 1 / 128), layer(emit, gate, 6, 6)]

    before = graph(build, x=(2, 6, 10, 10))
    after = tabulated(before)
    found = operators(after)
    assert lookups(after) == 1
    assert found.index("sigmoid") < found.index("lookup")
    for got, expected in zip(
        run(after, random(2, 6, 10, 10)), run(before, random(2, 6, 10, 10)), strict=True
    ):
        np.testing.assert_array_equal(got, expected)
