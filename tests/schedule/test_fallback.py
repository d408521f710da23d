import numpy as np
import pytest
from tvm import te, tirx, topi

from tests.schedule.kernels import cpu, placeholder, random, run, runnable


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("shape", [(1,), (5,), (3, 17), (2, 3, 64), (1, 7, 13, 13), (40, 50, 33)])
def test_elementwise(target, shape):
    x, y = random(*shape), random(*shape)
    a, b = placeholder("a", *shape), placeholder("b", *shape)
    out = te.compute(shape, lambda *i: a[i] * b[i] + tirx.const(1, "float32"))
    got, rule = run([a, b], out, [x, y], cpu(target))
    assert rule == "fallback"
    np.testing.assert_allclose(got, x.astype("float64") * y + 1, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((3, 40), (1,)), ((40, 33), (0,)), ((2, 5, 7, 7, 16), (2, 3)), ((2, 9, 9), (1, 2)), ((4, 64, 70), (2,))],
)
def test_sums(target, shape, axes):
    x = random(*shape)
    a = placeholder("a", *shape)
    got, _ = run([a], topi.sum(a, axes), [x], cpu(target))
    np.testing.assert_allclose(got, x.astype("float64").sum(axes), rtol=1e-5, atol=2e-5)


def test_maximum_of_integers():
    x = np.random.default_rng().integers(-100, 100, (6, 50), "int64")
    a = te.placeholder((6, 50), name="a", dtype="int64")
    got, _ = run([a], topi.max(a, 1), [x], cpu("host"))
    np.testing.assert_array_equal(got, x.max(1))


@pytest.mark.parametrize("shape", [(1, 20, 13, 17), (2, 3, 8, 8)])
def test_pooling(shape):
    x = random(*shape)
    a = placeholder("a", *shape)
    out = topi.nn.pool2d(a, (2, 2), (2, 2), (1, 1), (0, 0, 0, 0), "max", layout="NCHW")
    got, _ = run([a], out, [x], cpu("host"))
    n, c, h, w = shape
    cut = x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2)
    np.testing.assert_array_equal(got, cut.max((3, 5)))


def test_transposition_and_concatenation():
    x, y = random(5, 24, 33), random(5, 24, 7)
    a, b = placeholder("a", 5, 24, 33), placeholder("b", 5, 24, 7)
    out = topi.transpose(topi.concatenate([a, b], 2), [2, 0, 1])
    got, _ = run([a, b], out, [x, y], cpu("host"))
    np.testing.assert_array_equal(got, np.concatenate([x, y], 2).transpose(2, 0, 1))


def test_kernel_that_is_one_call_of_a_function():
    x = random(6, 40)
    a = placeholder("a", 6, 40)
    got, rule = run([a], topi.argsort(a, axis=1, dtype="int64"), [x], cpu("host"))
    assert rule == "fallback"
    np.testing.assert_array_equal(got, x.argsort(1))
