import numpy as np
import pytest
from tvm import topi

from tests.schedule.kernels import cpu, placeholder, random, run, runnable


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("shape", [(4, 3, 64), (2, 7, 49), (5, 197), (3, 1000), (6, 5)])
def test_softmax(target, shape):
    x = random(*shape) * 10
    a = placeholder("a", *shape)
    got, rule = run([a], topi.nn.softmax(a, -1), [x], cpu(target))
    assert rule == "rows"
    e = np.exp(x.astype("float64") - x.max(-1, keepdims=True))
    np.testing.assert_allclose(got, e / e.sum(-1, keepdims=True), rtol=3e-6, atol=1e-7)


def test_softmax_of_masked_scores():
    x = random(3, 32)
    x[:, 10:] = -np.inf
    a = placeholder("a", 3, 32)
    got, _ = run([a], topi.nn.softmax(a, -1), [x], cpu("host"))
    assert (got[:, 10:] == 0).all()
    np.testing.assert_allclose(got.sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 96), (2, 5, 384), (7, 33)])
def test_layer_norm(shape):
    x, gamma, beta = random(*shape), random(shape[-1]), random(shape[-1])
    a, g, b = placeholder("a", *shape), placeholder("g", shape[-1]), placeholder("b", shape[-1])
    got, rule = run(
        [a, g, b], topi.nn.layer_norm(a, g, b, [-1 + len(shape)], 1e-5), [x, gamma, beta], cpu("host")
    )
    assert rule == "rows"
    d = x.astype("float64")
    d = (d - d.mean(-1, keepdims=True)) / np.sqrt(d.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(got, d * gamma + beta, rtol=1e-4, atol=2e-5)
