"""Channels are scaled between layers; the network computes what it did."""

import numpy as np
import pytest
from tvm import relax

from compiler.compress.equalize import equalize
from tests.compress.nets import build, conv, dense, model, relu, samples
from tests.passes.graphs import const, operators

R = relax.op
SHAPE = (1, 3, 8, 8)


def _spread(call_weights):
    """Make the channels of weights (outputs first) differ by orders of magnitude."""
    factors = np.geomspace(0.01, 10, call_weights.shape[0]).reshape(-1, *[1] * (call_weights.ndim - 1))
    return (call_weights * factors).astype("float32")


def _conv(emit, x, inputs, outputs, kernel=3, seed=0, **options):
    shape = (outputs, inputs // options.get("groups", 1), kernel, kernel)
    weight = _spread(np.random.default_rng(seed).normal(0, 0.3, shape))
    y = emit(R.nn.conv2d(x, relax.const(weight), padding=kernel // 2, **options))
    return emit(R.add(y, const(1, outputs, 1, 1)))


def separable(emit, x):
    wide = emit(R.clip(_conv(emit, x, 3, 8, 1), 0, 6))
    padded = emit(R.nn.pad(wide, [0, 0, 0, 0, 0, 1, 0, 1]))
    deep = emit(R.nn.relu6(_conv(emit, padded, 8, 8, 3, 1, groups=8)))
    return _conv(emit, deep, 8, 4, 1, 2)


def pooled(emit, x):
    y = emit(R.nn.max_pool2d(relu(emit, _conv(emit, x, 3, 8)), 2, 2))
    return conv(emit, y, 8, 4)


def rows(emit, x):
    weight = _spread(np.random.default_rng(0).normal(0, 0.3, (6, 5))).T.copy()
    y = relu(emit, emit(R.add(emit(R.matmul(x, relax.const(weight))), const(6))))
    return dense(emit, y, 6, 4)


def _spreads(given):
    """Return, for each layer, the greatest over the least range of its input channels and output channels."""
    found = []
    for block in given.mod["main"].body.blocks:
        for binding in block.bindings:
            call = binding.value
            if getattr(getattr(call, "op", None), "name", "") in ("relax.nn.conv2d", "relax.matmul"):
                weight = abs(call.args[1].value.numpy())
                ranges = (
                    weight.reshape(weight.shape[0], -1).max(1),
                    weight.max(tuple({*range(weight.ndim)} - {1})),
                )
                found.append([each.max() / each.min() for each in ranges])
    return found


@pytest.mark.parametrize(
    ("net", "shape"),
    [(separable, SHAPE), (pooled, SHAPE), (rows, (4, 5))],
    ids=["separable", "pooled", "rows"],
)
def test_it_computes_the_same_with_ranges_that_are_alike(net, shape):
    before = model(net, x=shape)
    after = equalize(before)
    arrays = [10 * array for array in samples(2, *shape)]
    for array in arrays:
        expected, got = (build(each.mod, None)([array])[0] for each in (before, after))
        np.testing.assert_allclose(got, expected, atol=1e-5 * abs(expected).max())
    outputs = 1 if net is rows else 0
    assert _spreads(before)[0][outputs] > 100
    assert _spreads(after)[0][outputs] < 0.3 * _spreads(before)[0][outputs]


def test_relu6_becomes_a_relu_and_a_minimum():
    assert operators(equalize(model(separable, x=SHAPE)).mod) == [
        "nn.conv2d", "add", "nn.relu", "minimum", "nn.pad", "nn.conv2d", "add", "nn.relu", "minimum",
        "nn.conv2d", "add",
    ]  # fmt: skip


UNEQUAL = {
    "an activation that does not scale": lambda emit, x: _conv(
        emit, emit(R.sigmoid(_conv(emit, x, 3, 8))), 8, 4
    ),
    "two readers": lambda emit, x: [
        _conv(emit, y := relu(emit, _conv(emit, x, 3, 8)), 8, 4),
        _conv(emit, y, 8, 4, seed=3),
    ],
    "an output": lambda emit, x: [y := relu(emit, _conv(emit, x, 3, 8)), _conv(emit, y, 8, 4)],
    "a residual sum": lambda emit, x: _conv(emit, relu(emit, emit(R.add(_conv(emit, x, 3, 3), x))), 3, 4),
    "groups": lambda emit, x: _conv(emit, relu(emit, _conv(emit, x, 3, 8)), 8, 4, groups=2),
    "a clip that is not from zero": lambda emit, x: _conv(
        emit, emit(R.clip(_conv(emit, x, 3, 8), -1, 1)), 8, 4
    ),
    "a mean between": lambda emit, x: dense(emit, emit(R.mean(_conv(emit, x, 3, 8), [2, 3])), 8, 4),
}


@pytest.mark.parametrize("name", UNEQUAL)
def test_what_would_change_the_network_is_left_alone(name):
    given = model(UNEQUAL[name], x=SHAPE)
    assert equalize(given) is given


def test_channels_without_weights_stay_as_they_are():
    def net(emit, x):
        weight = np.random.default_rng(0).normal(0, 1, (4, 3, 1, 1)).astype("float32")
        weight[2] = 0
        return conv(emit, relu(emit, emit(R.nn.conv2d(x, relax.const(weight)))), 4, 4)

    before = model(net, x=SHAPE)
    (array,) = samples(1, *SHAPE)
    expected, got = (build(each.mod, None)([array])[0] for each in (before, equalize(before)))
    np.testing.assert_allclose(got, expected, atol=1e-5)
