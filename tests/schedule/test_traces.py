"""Kernels without a rule are scheduled by traces: they come back from a log, and others are refused."""

import json

import numpy as np
import pytest
import tvm
from tvm import te, tirx, topi
from tvm.s_tir import Schedule

from compiler.build.jit import jit
from compiler.schedule import vector_math
from compiler.schedule.apply import schedule_kernel
from compiler.schedule.blocks import with_root
from compiler.schedule.space import from_plain, to_plain
from compiler.schedule.traces import Traced, TraceSpace, is_current, traced
from tests.schedule.kernels import cpu, placeholder, random

HOST = cpu("host")


def kernel(inputs, output):
    return te.create_prim_func([*inputs, output])


def transposition(*shape):
    a = placeholder("a", *shape)
    return kernel([a], topi.transpose(a, [0, 2, 1]))


def column_sums(*shape):
    a = placeholder("a", *shape)
    return kernel([a], topi.sum(topi.multiply(a, a), 0))


def space_of(function):
    return TraceSpace(Traced(), mod=Schedule(with_root(function)).mod, target=HOST)


def scheduled(function, decisions):
    """Return `function` as the fallback schedules it with decisions that went through a log."""

    def decide(rule, space):
        assert rule == "fallback"
        found = from_plain(json.loads(json.dumps(to_plain(decisions))), space)
        assert found is not None
        return found

    made, rule = schedule_kernel(function, HOST, decide)
    assert rule == "fallback"
    return made


@pytest.mark.parametrize(
    ("function", "shape", "compute"),
    [
        (transposition(3, 33, 47), (3, 33, 47), lambda x: x.transpose(0, 2, 1)),
        (transposition(1, 64, 1), (1, 64, 1), lambda x: x.transpose(0, 2, 1)),
        (column_sums(37, 51), (37, 51), lambda x: (x.astype("float64") ** 2).sum(0)),
        (column_sums(96, 128), (96, 128), lambda x: (x.astype("float64") ** 2).sum(0)),
    ],
)
def test_every_design_comes_back_from_a_log_and_is_right(function, shape, compute):
    vector_math.register()
    designs = space_of(function).designs()
    assert designs
    x = random(*shape)
    for design in designs:
        made = scheduled(function, traced(design.trace))
        tvm.ir.assert_structural_equal(made.without_attr("tirx.is_scheduled"), design.mod["main"])
        out = tvm.runtime.empty(compute(x).shape, "float32")
        jit([made], HOST)[0](tvm.runtime.tensor(x), out)
        np.testing.assert_allclose(out.numpy(), compute(x), rtol=1e-4, atol=1e-4)


def test_tiles_are_among_the_designs():
    sampled = [len(design.trace.decisions) for design in space_of(transposition(4, 64, 96)).designs()]
    assert sampled == [3, 0], "three axes in tiles, or none"


def test_a_trace_of_another_tvm_or_kernel_is_refused():
    space = space_of(transposition(4, 64, 96))
    decisions = traced(space.designs()[0].trace)
    assert decisions in space
    assert Traced() in space
    assert list(space) == [Traced()]
    assert Traced(decisions.trace, "0.1") not in space
    assert decisions not in space_of(column_sums(64, 96))
    assert from_plain({"trace": [[["Fly", [], [], []]], []], "tvm": tvm.__version__}, space) is None
    assert from_plain({"trace": 7, "tvm": tvm.__version__}, space) is None
    assert "else" not in space


def test_only_traces_grow_old():
    assert is_current({"tile": {"rows": 2}})
    assert is_current(to_plain(Traced()))
    assert is_current(to_plain(Traced([[], []], tvm.__version__)))
    old = to_plain(Traced([[], []], "0.1"))
    assert not is_current(old)
    assert is_current({"gemm": {"rows": 2}})
    assert not is_current({"generic": old}), "as one of the options of a choice"


def test_there_is_nothing_to_decide_about_calls_and_symbolic_shapes():
    a = placeholder("a", 6, 40)
    assert space_of(kernel([a], topi.argsort(a, axis=1, dtype="int64"))).size == 1
    n = tirx.Var("n", "int64")
    b = te.placeholder((n, 40), name="b")
    assert space_of(kernel([b], topi.transpose(b))).size == 1
    assert space_of(transposition(4, 64, 96)).size > 1000
