"""What layers read, and its second moments."""

import numpy as np
import pytest
import torch
from tvm import relax

from compiler.compress.moments import MOST_INPUTS, Moments, Window, gather, window_of
from compiler.compress.quantizer import Quantizer
from compiler.compress.recipe import Recipe
from compiler.ir.graph import Graph
from tests.compress.nets import build, conv, data, dense, mixed, model, samples

R = relax.op
CONVOLUTIONS = [
    {"padding": 0},
    {"padding": (1, 2), "strides": (2, 1)},
    {"padding": (0, 1, 2, 3), "dilation": (1, 2)},
    {"padding": 1, "strides": 3, "groups": 3},
]


def _call(options, inputs=6, outputs=9, kernel=(3, 2)):
    weight = np.random.default_rng(1).normal(size=(outputs, inputs // options.get("groups", 1), *kernel))
    made = model(
        lambda emit, x: emit(R.nn.conv2d(x, relax.const(weight.astype("float32")), **options)),
        x=(2, inputs, 8, 7),
    )
    graph = Graph(made.mod)
    return made, weight, graph.definition(graph.values[0])


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_rows_times_weights_are_the_convolution(options):
    made, weight, call = _call(options)
    window, x = window_of(call), np.random.default_rng().normal(size=(2, 6, 8, 7)).astype("float32")
    rows = window.rows(x, 1 << 20)
    groups = options.get("groups", 1)
    outputs = np.einsum("gpi,goi->pgo", rows, weight.reshape(groups, 9 // groups, -1))
    (expected,) = build(made.mod, None)([x])
    np.testing.assert_allclose(
        outputs.reshape(2, *expected.shape[2:], 9).transpose(0, 3, 1, 2), expected, atol=1e-5
    )


def test_convolutions_of_other_ranks_and_matrices():
    x = np.random.default_rng().normal(size=(2, 4, 9)).astype("float32")
    rows = Window((3,), (2,), (1,), ((1, 0),), 2).rows(x, 100)
    padded = torch.nn.functional.pad(torch.from_numpy(x), (1, 0))[:, :, None]
    unfolded = torch.nn.functional.unfold(padded, (1, 3), stride=(1, 2)).numpy()
    np.testing.assert_array_equal(rows, unfolded.transpose(0, 2, 1).reshape(-1, 2, 6).transpose(1, 0, 2))
    np.testing.assert_array_equal(Window().rows(x, 100), x.reshape(1, -1, 9))


def test_of_many_outputs_some_are_looked_at_evenly():
    x = np.arange(40, dtype="float32").reshape(1, 1, 5, 8)
    np.testing.assert_array_equal(
        Window((1, 1), (1, 1), (1, 1), ((0, 0), (0, 0))).rows(x, 10), x.reshape(1, -1, 1)[:, ::4]
    )
    np.testing.assert_array_equal(Window().rows(x, 2), x.reshape(1, 5, 8)[:, [0, 2]])


def test_moments_are_means_over_all_batches():
    windows = (Window(), Window((2,), (1,), (1,), ((0, 0),)))
    moments = Moments(windows)
    arrays = np.random.default_rng().normal(size=(4, 1, 3, 5)).astype("float32")
    for array in arrays:
        moments.update(array)
    rows = arrays.reshape(-1, 5).astype("float64")
    np.testing.assert_allclose(moments.mean(windows[0])[0], rows.T @ rows / 12, rtol=1e-5, atol=1e-6)
    assert moments.mean(windows[1]).shape == (1, 6, 6)


def test_each_layer_gets_the_moments_of_what_it_reads():
    given = model(mixed, x=(1, 3, 16, 16))
    quantizer = Quantizer(given, Recipe())
    found = gather(quantizer, data(given, samples(3, 1, 3, 16, 16)), build)
    shapes = {layer.name: found[layer.var].shape for layer in quantizer.structure.layers}
    assert shapes == {
        "conv2d_0": (1, 27, 27), "conv2d_1": (8, 9, 9), "conv2d_2": (1, 8, 8), "matmul_0": (1, 16, 16),
    }  # fmt: skip
    first = quantizer.structure.layers[0]
    rows = np.concatenate(
        [
            window_of(quantizer.structure.graph.definition(first.var)).rows(x, 4096)
            for x in samples(3, 1, 3, 16, 16)
        ],
        1,
    )[0]
    np.testing.assert_allclose(found[first.var][0], rows.T @ rows / len(rows), rtol=1e-4, atol=1e-5)


def test_layers_without_moments_are_left_out():
    def net(emit, x):
        turned = emit(
            R.nn.conv2d_transpose(conv(emit, x, 3, 8), relax.const(np.ones((8, 4, 2, 2), "float32")))
        )
        return dense(emit, emit(R.reshape(turned, (1, 4 * 49 * 49))), 4 * 49 * 49, 2)

    given = model(net, x=(1, 3, 48, 48))
    quantizer = Quantizer(given, Recipe())
    assert MOST_INPUTS < 4 * 49 * 49
    found = gather(quantizer, data(given, samples(1, 1, 3, 48, 48)), build)
    assert list(found) == [quantizer.structure.layers[0].var]
