"""Operators on constants are computed, and to the numbers that TVM's kernels give."""

import numpy as np
import pytest
import tvm
from tvm import relax

from compiler.passes.fold_constants import _by_numpy, fold_constants, fold_weights
from tests.passes.graphs import const, graph, operators, random, run

R = relax.op

FOLDED = {
    "add": lambda c: R.add(c, relax.const(np.float32(0.1))),
    "multiply": lambda c: R.multiply(c, c),
    "less": lambda c: R.astype(R.less(c, relax.const(np.float32(0))), "float32"),
    "where": lambda c: R.where(relax.const(np.array([True, False, True, False])), c, R.negative(c)),
    "reshape": lambda c: R.reshape(c, (6, 4)),
    "permute": lambda c: R.permute_dims(c, [2, 0, 1]),
    "permute all": lambda c: R.permute_dims(c),
    "expand": lambda c: R.expand_dims(c, [0, 2]),
    "squeeze": lambda c: R.squeeze(R.expand_dims(c, 0), [0]),
    "broadcast": lambda c: R.broadcast_to(c, (5, 2, 3, 4)),
    "slice": lambda c: R.strided_slice(c, [1, 2], [1, 0], [3, 4], [1, 2]),
    "slice from the end": lambda c: R.strided_slice(c, [2], [-3], [-1]),
    "flip": lambda c: R.flip(c, 2),
    "take": lambda c: R.take(c, relax.const(np.array([2, 0, 2])), axis=1),
    "concat": lambda c: R.concat([c, c], -1),
    "full": lambda c: R.add(c, R.full((2, 3, 4), relax.const(np.float32(2)), "float32")),
    "to integers": lambda c: R.astype(
        R.astype(R.multiply(c, relax.const(np.float32(9))), "int32"), "float32"
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_numpy_computes_what_the_kernels_compute(name):
    weight = const(2, 3, 4)

    def build(emit, x):
        def bind(expr):
            """Bind the operands of `expr` first: a pass sees one operator a binding."""
            if not isinstance(expr, tvm.ir.Call) or isinstance(expr, tvm.ir.GenericConst):
                return expr
            arguments = [
                relax.Tuple([bind(f) for f in a.fields]) if isinstance(a, relax.Tuple) else bind(a)
                for a in expr.args
            ]
            return emit(relax.Call(expr.op, arguments, expr.attrs, expr.ty_args))

        return R.multiply(x, emit(R.sum(bind(FOLDED[name](weight)))))

    before = graph(build, x=(3,))
    after = _by_numpy(before)
    assert operators(after) in (["sum", "multiply"], ["concat", "sum", "multiply"])
    np.testing.assert_array_equal(run(after, random(3)), run(before, random(3)))


def test_what_numpy_does_not_know_tvm_folds():
    before = graph(lambda emit, x: R.multiply(x, emit(R.erf(const(3)))), x=(3,))
    assert operators(_by_numpy(before)) == ["erf", "multiply"]
    assert operators(fold_constants(before)) == ["multiply"]


@pytest.mark.parametrize(
    "kept",
    [
        lambda c: R.broadcast_to(c, (1 << 26, 3)),  # larger than what it is made of
        lambda c: R.take(c, relax.const(np.array([3])), axis=0),  # outside: whatever the kernel does stays
    ],
)
def test_stays(kept):
    before = graph(lambda emit, x: R.multiply(x, emit(R.sum(emit(kept(const(3)))))), x=(1,))
    tvm.ir.assert_structural_equal(_by_numpy(before), before)


def _quantized(axis, scale, zero):
    stored = relax.const(np.arange(-12, 12, dtype="int8").reshape(2, 3, 4))
    return R.dequantize(stored, relax.const(scale), relax.const(zero), axis=axis)


@pytest.mark.parametrize(
    ("axis", "scale", "zero"),
    [
        (0, np.array(0.5, "float32"), np.array(0, "int8")),
        (1, np.array([0.1, 0.2, 0.3], "float32"), np.array([0, 1, -2], "int8")),
        (-1, np.array([0.1, 0.2, 0.3, 4], "float32"), np.zeros(4, "int8")),
    ],
)
def test_quantized_weights_are_folded_only_when_no_layer_takes_them(axis, scale, zero):
    def build(emit, x):
        return R.add(emit(R.multiply(x, emit(_quantized(axis, scale, zero)))), emit(R.sin(const(2, 3, 4))))

    before = graph(build, x=(2, 3, 4))
    kept = fold_constants(before)
    assert operators(kept) == ["dequantize", "multiply", "add"]
    folded = fold_weights(kept)
    assert operators(folded) == ["multiply", "add"]
    np.testing.assert_array_equal(run(folded, random(2, 3, 4)), run(before, random(2, 3, 4)))
