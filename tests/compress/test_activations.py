"""Activations rounded at run time, against numpy."""

import numpy as np
import pytest

from compiler.compress.activations import at_run_time
from compiler.compress.scheme import Binary, PerTensor
from tests.passes.graphs import graph, random, run


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (7, 9)])
def test_signs_times_the_mean_magnitude(shape):
    x = random(*shape)
    x[0, 0], x[1, 1] = 0, -0.0
    mod = graph(lambda emit, v: at_run_time(emit, v, Binary(PerTensor())), x=shape)
    expected = np.where(x >= 0, 1, -1) * np.abs(x.astype("float64")).mean()
    np.testing.assert_allclose(run(mod, x), expected, rtol=1e-5)
