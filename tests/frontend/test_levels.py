"""What the integers of a graph stand for."""

import numpy as np
import pytest
from tvm import relax

from compiler.frontend.levels import as_dtype, layer_levels, with_levels
from compiler.support.signature import Levels, Signature, TensorSpec

R = relax.op
SIGNATURE = Signature((TensorSpec("x", (2, 6), "uint8"),), (TensorSpec("y", (2, 6), "int8"),))


def number(value, dtype="float32"):
    return relax.const(np.array(value, dtype))


def module(build, dtype="uint8"):
    """Return a module of one input of bytes; its values are named as the importer names them."""
    x, builder = relax.Var("x", relax.TensorType([2, 6], dtype)), relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            out = builder.emit_output(relax.Tuple([build(lambda e, n="n": builder.emit(e, f"{n}__"), x)]))
        builder.emit_func_output(out)
    return builder.finalize()


def read(emit, x, scale=0.5, zero=128):
    return emit(R.dequantize(x, number(scale), number(zero, "int32"), axis=0))


def rounded(emit, x, name, scale=0.25, zero=-7, dtype="int8"):
    return emit(R.quantize(x, number(scale), number(zero, "int32"), axis=0, out_dtype=dtype), name)


def test_inputs_and_outputs_of_bytes():
    mod = module(lambda emit, x: rounded(emit, emit(R.nn.relu(read(emit, x))), "relu"))
    found = with_levels(SIGNATURE, mod)
    assert found.inputs[0].levels == Levels(0.5, 128)
    assert found.outputs[0].levels == Levels(0.25, -7)
    assert str(found.inputs[0]) == "x: 2x6 uint8, 0.5 * (x - 128)"
    assert str(found.outputs[0]) == "y: 2x6 int8, 0.25 * (x + 7)"
    np.testing.assert_array_equal(Levels(0.5, 128).real(np.array([0, 129, 255], "uint8")), [-64, 0.5, 63.5])


@pytest.mark.parametrize(
    "build",
    [
        lambda emit, x: emit(R.astype(x, "int8")),
        lambda emit, x: emit(R.add(read(emit, x), read(emit, x, 0.6))),
        lambda emit, x: emit(R.add(read(emit, x), emit(R.astype(x, "float32")))),
    ],
)
def test_other_readers_take_bytes_for_something_else(build):
    assert with_levels(SIGNATURE, module(build)).inputs[0].levels is None


def test_layers_by_their_nodes():
    def build(emit, x):
        first = rounded(emit, emit(R.nn.relu(read(emit, x))), "relu")
        twice = emit(R.negative(emit(R.dequantize(first, number(0.25), number(-7, "int32"), axis=0))))
        ends = [
            emit(R.dequantize(rounded(emit, twice, "neg", scale), number(scale), number(-7, "int32"), axis=0))
            for scale in (0.1, 0.2)
        ]
        return emit(R.add(*ends))

    assert layer_levels(module(build)) == {"relu": (Levels(0.25, -7), "int8")}


@pytest.mark.parametrize(("dtype", "zero"), [("int8", -7), ("uint8", 121), ("int32", None)])
def test_the_same_values_in_bytes_of_the_other_sign(dtype, zero):
    found = as_dtype((Levels(0.25, -7), "int8"), dtype)
    assert found == (None if zero is None else Levels(0.25, zero))
