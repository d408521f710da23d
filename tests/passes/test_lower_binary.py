import numpy as np
import pytest
from tvm import relax

from compiler.compress.activations import at_run_time
from compiler.compress.scheme import Binary, PerTensor
from compiler.compress.weights import quantize_weights
from compiler.passes import optimize
from compiler.passes.lower_binary import lower_binary
from compiler.target import load
from tests.passes.graphs import assert_same_numbers, const, graph, operators, random

R = relax.op


def _signs(emit, x):
    return at_run_time(emit, x, Binary(PerTensor()))


def _product(rows=(3,), depth=70, outputs=20):
    weights = quantize_weights(random(depth, outputs), Binary(), 1, 0)

    def build(emit, x):
        return R.add(emit(R.matmul(_signs(emit, x), emit(weights.expr()))), const(outputs))

    return graph(build, x=(*rows, depth))


def _convolution(**options):
    weights = quantize_weights(random(20, 12, 3, 3), Binary(), 0, 1)

    def build(emit, x):
        first = emit(R.nn.relu(emit(R.nn.conv2d(x, const(12, 3, 1, 1)))))
        moved = emit(R.subtract(first, relax.const(np.float32(0.3))))
        return R.nn.conv2d(_signs(emit, moved), emit(weights.expr()), **options)

    return graph(build, x=(2, 3, 9, 7))


@pytest.mark.parametrize("rows", [(3,), (2, 5), (1,)])
def test_products_of_signs_become_products_of_bits(rows):
    before = _product(rows)
    after = lower_binary(4)(before)
    names = [name for name in operators(after) if "mean" not in name]
    assert names[-4:] == ["xnor_dense", "multiply", "multiply", "add"]
    assert "matmul" not in names
    assert_same_numbers(before, after, random(*rows, 70))


@pytest.mark.parametrize("options", [{}, {"padding": 1}, {"padding": [0, 2, 1, 1], "strides": 2}])
def test_convolutions_of_signs_come_before_their_scales(options):
    before = _convolution(**options)
    after = lower_binary(4)(before)
    names = [name for name in operators(after) if "mean" not in name]
    assert names[-3:] == ["nn.conv2d", "multiply", "multiply"]
    assert_same_numbers(before, after, random(2, 3, 9, 7))


@pytest.mark.parametrize("make", [_product, lambda: _convolution(padding=1)])
def test_bits_are_multiplied_after_the_whole_pipeline(make):
    before = make()
    after, _ = optimize(before, load("host"))
    kernels = [name for name in operators(after) if "xnor" in name]
    assert len(kernels) == 1
    shape = [int(n) for n in before["main"].params[0].ty.shape]
    assert_same_numbers(before, after, random(*shape))


@pytest.mark.parametrize("make", [_product, lambda: _convolution(padding=1)])
def test_other_targets_compute_in_float(make):
    before = make()
    after, _ = optimize(before, load("h100"))
    assert not any("xnor" in name for name in operators(after))
    shape = [int(n) for n in before["main"].params[0].ty.shape]
    assert_same_numbers(before, after, random(*shape))


def test_other_products_are_left_alone():
    """Signs times anything but signs, and thresholds other than zero, are no products of bits."""

    def build(emit, x):
        codes = relax.const(np.array([[1, 2], [-1, 1]], "int8"))
        scale, zero = relax.const(np.float32(0.5)), relax.const(np.int8(0))
        signs = quantize_weights(random(2, 2), Binary(), 1, 0)
        above = emit(R.greater_equal(x, relax.const(np.float32(0.5))))
        shifted = emit(R.where(above, relax.const(np.float32(1)), relax.const(np.float32(-1))))
        size = emit(R.mean(x))
        return [
            R.matmul(_signs(emit, x), emit(R.dequantize(codes, scale, zero, axis=1))),
            R.matmul(emit(R.multiply(shifted, size)), emit(signs.expr())),
            R.matmul(x, emit(signs.expr())),
        ]

    before = graph(build, x=(3, 2))
    assert operators(lower_binary(4)(before)).count("matmul") == 3
