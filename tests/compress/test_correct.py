"""The mean of what an error of weights adds to a layer's output."""

import numpy as np
import pytest
from tvm import relax

from compiler.compress.correct import mean_error
from tests.passes.graphs import graph, run

R = relax.op

LAYERS = {
    "conv2d": (lambda x, w: R.nn.conv2d(x, w), (6, 4, 3, 3)),
    "groups": (lambda x, w: R.nn.conv2d(x, w, groups=2), (6, 2, 3, 3)),
    "depthwise": (lambda x, w: R.nn.conv2d(x, w, groups=4), (4, 1, 3, 3)),
    "transposed": (lambda x, w: R.nn.conv2d_transpose(x, w, strides=(2, 2)), (4, 6, 2, 2)),
    "transposed, groups": (lambda x, w: R.nn.conv2d_transpose(x, w, strides=(2, 2), groups=2), (4, 3, 2, 2)),
    "matmul": (lambda x, w: R.matmul(x, w), (9, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_mean_over_all_places(name):
    """Exact where each channel of the input is constant."""
    make, shape = LAYERS[name]
    error = np.random.default_rng(1).normal(0, 0.1, shape).astype("float32")
    means = np.random.default_rng(2).normal(0, 1, 9 if name == "matmul" else 4)
    size = (3, 9) if name == "matmul" else (1, 4, 6, 6)
    x = np.broadcast_to(means if name == "matmul" else means.reshape(1, 4, 1, 1), size).astype("float32")
    calls = []

    def build(emit, x):
        calls.append(make(x, relax.const(error)))
        return calls[0]

    got = run(graph(build, x=size), np.ascontiguousarray(x))
    axes = 0 if name == "matmul" else (0, 2, 3)
    expected = got.mean(axes)
    np.testing.assert_allclose(mean_error(calls[0], error, means).reshape(-1), expected, atol=1e-5)
