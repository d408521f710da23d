import numpy as np
import pytest
import tvm
from tvm import relax

from compiler.passes.fold_scale import fold_scale
from tests.passes.graphs import assert_same_numbers, const, graph, operators, random


def _conv(x, weight):
    return relax.op.nn.conv2d(x, weight, padding=(1, 1))


def test_scale_moves_into_weights_and_offsets_into_one_bias():
    weight, bias, scale, shift = (
        const(6, 3, 3, 3),
        const(1, 6, 1, 1),
        const(1, 6, 1, 1, seed=1),
        const(6, 1, 1),
    )
    before = graph(
        lambda emit, x: relax.op.add(
            emit(relax.op.multiply(emit(relax.op.add(emit(_conv(x, weight)), bias)), scale)), shift
        ),
        x=(1, 3, 5, 5),
    )
    w, b, s, c = (constant.value.numpy() for constant in (weight, bias, scale, shift))
    expected = graph(
        lambda emit, x: relax.op.add(
            emit(_conv(x, relax.const(w * s.reshape(6, 1, 1, 1)))), relax.const(b * s + c)
        ),
        x=(1, 3, 5, 5),
    )
    tvm.ir.assert_structural_equal(fold_scale(before), expected)
    assert_same_numbers(before, fold_scale(before), random(1, 3, 5, 5))


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolution(groups):
    weight, scale = const(4, 3, 2, 2), const(1, 3 * groups, 1, 1, seed=3)
    before = graph(
        lambda emit, x: relax.op.multiply(
            emit(relax.op.nn.conv2d_transpose(x, weight, strides=(2, 2), groups=groups)), scale
        ),
        x=(1, 4, 3, 3),
    )
    after = fold_scale(before)
    assert operators(after) == ["nn.conv2d_transpose"]
    assert_same_numbers(before, after, random(1, 4, 3, 3))


def test_dense_layer_behind_its_transposition():
    weight, scale = const(5, 4), const(5, seed=3)
    before = graph(
        lambda emit, x: relax.op.multiply(
            emit(relax.op.matmul(x, emit(relax.op.permute_dims(weight)))), scale
        ),
        x=(2, 4),
    )
    after = fold_scale(before)
    assert operators(after) == ["matmul"]
    assert_same_numbers(before, after, random(2, 4))


def test_keeps_a_convolution_that_something_else_reads():
    weight, scale = const(4, 4, 3, 3), const(1, 4, 1, 1)

    def build(emit, x):
        y = emit(_conv(x, weight))
        return relax.op.add(emit(relax.op.multiply(y, scale)), y)

    mod = graph(build, x=(1, 4, 4, 4))
    tvm.ir.assert_structural_equal(fold_scale(mod), mod)


def test_keeps_what_varies_over_the_image():
    weight = const(4, 4, 3, 3)
    mask = relax.const(np.random.default_rng(0).random((1, 1, 4, 4), "float32"))
    mod = graph(lambda emit, x: relax.op.multiply(emit(_conv(x, weight)), mask), x=(1, 4, 4, 4))
    tvm.ir.assert_structural_equal(fold_scale(mod), mod)
