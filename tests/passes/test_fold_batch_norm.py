import numpy as np
import tvm
from tvm import relax

from compiler.passes.fold_batch_norm import fold_batch_norm
from tests.passes.graphs import assert_same_numbers, const, graph, random


def _batch_norm(x, gamma, beta, mean, var, axis=1):
    return relax.op.nn.batch_norm(x, gamma, beta, mean, var, axis=axis, epsilon=1e-3)


def test_becomes_one_multiply_and_one_add():
    gamma, beta, mean, var = const(5, seed=1), const(5, seed=2), const(5, seed=3), const(5, seed=4, low=0.1)
    before = graph(lambda emit, x: emit(_batch_norm(x, gamma, beta, mean, var))[0], x=(2, 5, 3))
    g, b, m, v = (np.asarray(c.value.numpy(), "float64") for c in (gamma, beta, mean, var))
    scale = g / np.sqrt(v + 1e-3)
    shift = b - m * scale
    expected = graph(
        lambda emit, x: relax.op.add(
            emit(relax.op.multiply(x, relax.const(scale.reshape(1, 5, 1).astype("float32")))),
            relax.const(shift.reshape(1, 5, 1).astype("float32")),
        ),
        x=(2, 5, 3),
    )
    tvm.ir.assert_structural_equal(fold_batch_norm(before), expected)
    assert_same_numbers(before, fold_batch_norm(before), random(2, 5, 3))


def test_follows_the_axis():
    parameters = const(4, seed=1), const(4, seed=2), const(4, seed=3), const(4, seed=4, low=0.1)
    before = graph(lambda emit, x: emit(_batch_norm(x, *parameters, axis=-1))[0], x=(2, 3, 4))
    assert_same_numbers(before, fold_batch_norm(before), random(2, 3, 4))


def test_leaves_statistics_that_are_inputs():
    gamma, beta, var = const(4, seed=1), const(4, seed=2), const(4, seed=4, low=0.1)
    mod = graph(lambda emit, x, mean: emit(_batch_norm(x, gamma, beta, mean, var))[0], x=(1, 4, 3), mean=(4,))
    tvm.ir.assert_structural_equal(fold_batch_norm(mod), mod)
