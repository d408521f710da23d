import numpy as np
import pytest
import tvm
from tvm import relax

from compiler.passes.lower_group_norm import lower_group_norm
from tests.passes.graphs import const, graph, operators, random, run

R = relax.op


def _expected(x, groups, gamma, beta):
    rows = x.astype("float64").reshape(x.shape[0], groups, -1)
    rows = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + 1e-5)
    shape = (1, -1, *[1] * (x.ndim - 2))
    return rows.reshape(x.shape) * gamma.value.numpy().reshape(shape) + beta.value.numpy().reshape(shape)


def test_becomes_a_centred_row_scaled_by_its_deviation():
    gamma, beta = const(6), const(6, seed=1)
    before = graph(lambda emit, x: R.nn.group_norm(x, gamma, beta, 2, 1, [2, 3]), x=(1, 6, 4, 4))

    def lowered(emit, x):
        rows = emit(R.reshape(x, [1, 2, 48]))
        centred = emit(R.subtract(rows, emit(R.mean(rows, [2], keepdims=True))))
        variance = emit(R.mean(emit(R.multiply(centred, centred)), [2], keepdims=True))
        stable = emit(R.add(variance, relax.const(np.array(1e-5, "float32"))))
        scaled = emit(R.multiply(centred, emit(R.rsqrt(stable))))
        image = emit(R.reshape(scaled, [1, 6, 4, 4]))
        weights = [emit(R.reshape(p, [1, 6, 1, 1])) for p in (gamma, beta)]
        return R.add(emit(R.multiply(image, weights[0])), weights[1])

    after = lower_group_norm(before)
    assert operators(after) == [
        "reshape", "mean", "subtract", "multiply", "mean", "add", "rsqrt", "multiply",
        "reshape", "reshape", "reshape", "multiply", "add",
    ]  # fmt: skip
    x = random(1, 6, 4, 4)
    np.testing.assert_allclose(run(after, x), run(graph(lowered, x=(1, 6, 4, 4)), x), rtol=1e-6)


@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("groups", [1, 3, 6])
def test_keeps_its_digits_far_from_zero(groups, offset):
    gamma, beta = const(6), const(6, seed=1)
    mod = graph(lambda emit, x: R.nn.group_norm(x, gamma, beta, groups, 1, [2, 3]), x=(2, 6, 5, 7))
    x = random(2, 6, 5, 7) + np.float32(offset)
    # An input at 1000 is itself rounded to 3e-5 of the deviation.
    np.testing.assert_allclose(run(lower_group_norm(mod), x), _expected(x, groups, gamma, beta), atol=3e-4)


def test_instance_norm_of_any_size():
    n, h = tvm.tirx.Var("n", "int64"), tvm.tirx.Var("h", "int64")
    gamma, beta = const(4), const(4, seed=1)
    mod = graph(lambda emit, x: R.nn.instance_norm(x, gamma, beta, 1, [2, 3]), x=(n, 4, h, 5))
    x = random(3, 4, 6, 5) + np.float32(100)
    np.testing.assert_allclose(run(lower_group_norm(mod), x), _expected(x, 4, gamma, beta), atol=1e-4)
