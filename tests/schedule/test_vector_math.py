import math

import numpy as np
import pytest
import torch
from tvm import te, tirx

from tests.schedule.kernels import cpu, run, runnable

EXTREMES = [np.nan, np.inf, -np.inf, 0.0, -0.0, 88.72, 88.73, -87.33, -87.34, 1e-38, -1e-38, 3.4e38, -3.4e38]


def _samples():
    rng = np.random.default_rng()
    spread = rng.normal(size=1 << 15) * 10.0 ** rng.uniform(-30, 1, 1 << 15)
    values = [EXTREMES, rng.uniform(-100, 100, 1 << 16), rng.normal(size=1 << 16), spread]
    whole = np.concatenate(values).astype("float32")
    return whole[: len(whole) // 64 * 64]


def _compute(function, x, target):
    a = te.placeholder(x.shape, name="a", dtype=str(x.dtype))
    return run([a], te.compute(x.shape, lambda i: function(a[i])), [x], target)[0]


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize(
    ("function", "reference", "relative", "absolute"),
    [
        # 2^-23 is the spacing at 1; what is smaller than a normal number becomes 0.
        (tirx.exp, torch.exp, 4 * 2.0**-23, 1.2e-38),
        (tirx.tanh, torch.tanh, 2e-7, 0),
        (tirx.erf, torch.erf, 0, 4e-7),
        (tirx.sigmoid, torch.sigmoid, 4e-7, 1.2e-38),
    ],
)
def test_accuracy_and_extremes(target, function, reference, relative, absolute):
    x = _samples()
    got = _compute(function, x, cpu(target))
    exact = reference(torch.from_numpy(x).double()).numpy()
    with np.errstate(over="ignore"):
        nearest = exact.astype("float32")
    np.testing.assert_array_equal(np.isnan(got), np.isnan(x))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(nearest))
    finite = np.isfinite(nearest)
    error = np.abs(got[finite] - exact[finite])
    assert (error <= relative * np.abs(exact[finite]) + absolute).all()


@pytest.mark.parametrize("function", [tirx.exp, tirx.erf, tirx.tanh])
def test_float64_still_comes_from_the_c_library(function):
    x = np.random.default_rng().normal(size=64)
    got = _compute(function, x, cpu("host"))
    name = function.__name__
    np.testing.assert_allclose(got, [getattr(math, name)(value) for value in x], rtol=1e-15, atol=1e-15)
