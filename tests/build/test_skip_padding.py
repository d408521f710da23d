import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script import ir as I
from tvm.script import tirx as T

from compiler.build.skip_padding import skip_padding
from compiler.build.statements import map_statements
from compiler.passes.kernels import conv2d as kernel
from compiler.target import load
from tests.build.kernels import Kernel, lowered, scheduled
from tests.schedule.kernels import lanes_of, placeholder, random


@I.ir_module
class Guarded:
    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((8,), "float32"), w: T.Buffer((4,), "float32"), y: T.Buffer((4,), "float32")):
        for i in range(2):
            y[0] = y[0] + T.if_then_else(i > 0, x[i], T.float32(0)) * w[0]
            y[1] = y[1] + T.if_then_else(i > 0, x[i + 1], T.float32(0)) * w[0]
            y[2] = y[2] + T.if_then_else(i < 1, x[i + 2], T.float32(0)) * w[1]
            y[3] = y[3] + x[i] * w[1]
            y[0] = y[0] + T.if_then_else(i > 0, x[i], T.float32(0)) * w[2]


@I.ir_module
class Branched:
    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((8,), "float32"), w: T.Buffer((4,), "float32"), y: T.Buffer((4,), "float32")):
        for i in range(2):
            if i > 0:
                y[0] = y[0] + x[i] * w[0]
                y[1] = y[1] + x[i + 1] * w[0]
            if i < 1:
                y[2] = y[2] + x[i + 2] * w[1]
            y[3] = y[3] + x[i] * w[1]
            if i > 0:
                y[0] = y[0] + x[i] * w[2]


@I.ir_module
class Vectors:
    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((8,), "float32"), w: T.Buffer((8,), "float32"), y: T.Buffer((8,), "float32")):
        for i in range(2):
            y[T.Ramp(0, 1, 4)] = (
                y[T.Ramp(0, 1, 4)]
                + T.if_then_else(i > 0, x[T.Ramp(0, 1, 4)], T.Broadcast(T.float32(0), 4)) * w[T.Ramp(0, 1, 4)]
            )
            y[T.Ramp(4, 1, 4)] = (
                y[T.Ramp(4, 1, 4)]
                + T.Broadcast(T.if_then_else(i > 0, x[0], T.float32(0)), 4) * w[T.Ramp(4, 1, 4)]
            )


@I.ir_module
class BranchedVectors:
    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((8,), "float32"), w: T.Buffer((8,), "float32"), y: T.Buffer((8,), "float32")):
        for i in range(2):
            if i > 0:
                y[T.Ramp(0, 1, 4)] = y[T.Ramp(0, 1, 4)] + x[T.Ramp(0, 1, 4)] * w[T.Ramp(0, 1, 4)]
                y[T.Ramp(4, 1, 4)] = y[T.Ramp(4, 1, 4)] + T.Broadcast(x[0], 4) * w[T.Ramp(4, 1, 4)]


@I.ir_module
class Others:
    """Nothing here may be skipped: what stands outside changes a sum or a maximum, or is neither's."""

    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((8,), "float32"), w: T.Buffer((4,), "float32"), y: T.Buffer((4,), "float32")):
        for i in range(2):
            y[0] = y[0] + T.if_then_else(i > 0, x[i], T.float32(1)) * w[0]
            y[1] = y[1] - T.if_then_else(i > 0, x[i], T.float32(0)) * w[0]
            y[2] = T.if_then_else(i > 0, x[i], T.float32(0)) * w[0]
            y[3] = T.max(y[3], T.if_then_else(i > 0, x[i], T.float32(0)))


@I.ir_module
class Windows:
    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((8,), "float32"), w: T.Buffer((4,), "float32"), y: T.Buffer((4,), "float32")):
        for i in range(2):
            y[0] = y[0] + T.if_then_else(i > 0, x[i], T.float32(0))
            y[1] = T.max(y[1], T.if_then_else(i > 0, x[i], T.float32("-inf")))
            y[2] = T.max(y[2], x[i] * w[1])


@I.ir_module
class BranchedWindows:
    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((8,), "float32"), w: T.Buffer((4,), "float32"), y: T.Buffer((4,), "float32")):
        for i in range(2):
            if i > 0:
                y[0] = y[0] + x[i]
                y[1] = T.max(y[1], x[i])
            y[2] = T.max(y[2], x[i] * w[1])


@pytest.mark.parametrize(
    ("before", "after"),
    [(Guarded, Branched), (Vectors, BranchedVectors), (Windows, BranchedWindows), (Others, Others)],
)
def test_updates_with_one_condition_in_a_row_share_a_branch(before, after):
    tvm.ir.assert_structural_equal(skip_padding(before), after)


@pytest.mark.parametrize(("before", "outputs"), [(Guarded, 4), (Vectors, 8), (Windows, 4), (Others, 4)])
def test_numbers_stay(before, outputs):
    x, w, start = (random(size) for size in (8, outputs, outputs))
    results = []
    for mod in (before, skip_padding(before)):
        y = tvm.runtime.tensor(start)
        tvm.tirx.build(mod, target=load("host").tvm_target())["main"](*map(tvm.runtime.tensor, (x, w)), y)
        results.append(y.numpy())
    # Adding a product with zero and adding nothing are the same to the last bit.
    np.testing.assert_array_equal(*results)
    assert (results[0] != start).any()


def _depthwise(size: int) -> Kernel:
    """A depthwise convolution, 3 x 3, one row and column of padding, without an epilogue."""

    def make(target):
        c = lanes_of(target)
        x, w = placeholder("x", 1, 2, size, size, c), placeholder("w", 2, 3, 3, c)
        return [x, w], kernel.depthwise_conv2d(x, w, kernel.Conv2dShape((1, 1), (1,) * 4, (1, 1), 16))

    return make


def test_a_depthwise_convolution_tests_rows_once_a_tile():
    target = load("x86-64-v3")
    function = lowered(scheduled(_depthwise(14), target), target, "SkipPadding")["kernel"]
    assert "if_then_else" not in function.script(), "no element is tested on its own"
    branches = []

    def look(stmt):
        if isinstance(stmt, tirx.IfThenElse):
            branches.append(stmt)
        return stmt

    map_statements(function.body, look)
    assert branches
    # A branch holds a row of the kernel for a whole tile: three columns of it by more than one of the output.
    assert all(len(branch.then_case.seq) >= 6 for branch in branches)
