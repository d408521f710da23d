"""Products of two activations of bytes and tables of them, through the whole compiler: on x86 and Arm."""

from functools import cache

import numpy as np
import pytest
from tvm import relax, tirx
from tvm.tirx import PrimFunc

from compiler.build import build as build_library
from compiler.deploy import run_library
from compiler.passes import optimize
from compiler.schedule import schedule
from compiler.target import load
from tests.build.networks import Case
from tests.build.test_cross import _armv8, emulated, runtime
from tests.passes.graphs import graph, random
from tests.passes.test_lower_quantized import heads, q, w
from tests.passes.test_tabulate import run
from tests.schedule.kernels import cpu, runnable

R = relax.op
QUANTUM = 0.05

__all__ = ["runtime"]  # a fixture of the emulated tests


@cache
def attention_net():
    """Attention of three heads, 25 rows and a depth of 8, whose output a layer and a GELU both read."""

    def build(emit, x):
        queries, keys, values = (heads(emit, x, zero=zero) for zero in (120, 128, 140))
        scores = emit(R.matmul(queries, emit(R.permute_dims(keys, [0, 1, 3, 2]))))
        weights = q(emit, emit(R.nn.softmax(scores, -1)), 1 / 255)
        both = emit(R.permute_dims(emit(R.matmul(weights, values)), [0, 2, 1, 3]))
        rows = q(emit, emit(R.reshape(both, (50, 24))), 0.0213, 110)
        hidden = emit(R.matmul(rows, w(emit, 24, 24, axis=1)))
        gate = q(emit, emit(R.nn.gelu(rows)), 0.015, 12)
        return q(emit, emit(R.add(hidden, gate)), QUANTUM, 128)

    mod, x = graph(build, x=(2, 3, 25, 8)), random(2, 3, 25, 8)
    return Case(mod, x, run(mod, x)[0])


def _check(output):
    expected = attention_net().output
    # Where a value lies between two bytes, either may be right, and what reads those moves with them.
    error = abs(output.reshape(expected.shape) - expected)
    assert error.max() <= 1.01 * QUANTUM
    assert (error > 0.5 * QUANTUM).mean() < 0.02
    assert len(np.unique(expected)) > 30


@pytest.mark.parametrize("name", runnable())
def test_x86(tmp_path, name):
    target, case = cpu(name), attention_net()
    (output,) = run_library(case.build(target, tmp_path).library, [case.input], 1)
    _check(output)


@pytest.mark.parametrize("name", ["rpi4", "rpi5", "armv8.6"])
def test_arm(runtime, tmp_path, name):
    target, case = _armv8(name), attention_net()
    _check(emulated(target, runtime, tmp_path, case.build(target, tmp_path).library, case.input))


def test_only_scores_and_the_output_are_floats():
    kernels = attention_net().scheduled(load("host")).functions.values()
    written = [str(f.params[-1].ty.dtype) for f in kernels if isinstance(f, PrimFunc)]
    assert len(written) > 8
    assert written.count("float32") == 2


def test_rows_known_at_run_time_only(tmp_path):
    def build(emit, x, y):
        return q(emit, emit(R.matmul(q(emit, x, 0.03, 128), q(emit, y, 0.03, 110))), 0.0213, 100)

    mod, target = graph(build, x=(tirx.Var("n", "int64"), 10), y=(10, 40)), load("host")
    library = build_library(schedule(optimize(mod, target)[0], target)[0], target, tmp_path).library
    for rows in (1, 7, 33):
        arrays = [random(rows, 10), random(10, 40)]
        (output,) = run_library(library, arrays, 1)
        np.testing.assert_allclose(output, run(mod, *arrays)[0], atol=1.01 * 0.0213)
