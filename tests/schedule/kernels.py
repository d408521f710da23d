"""Runs one kernel of a rule on this machine: schedule, build, call."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import te, tirx
from tvm.s_tir import Schedule

from compiler.build.tile_functions import PIPELINE
from compiler.schedule.apply import ISOLATED, schedule_kernel
from compiler.schedule.blocks import ISOLATE
from compiler.schedule.vector_math import register
from compiler.target import Target, load, why_not_here

CPUS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")


def cpu(name: str) -> Target:
    """Return the target `name`, or skip the test where this machine lacks its features."""
    target = load(name)
    reason = why_not_here(target.triple, target.features)
    if reason is not None:
        pytest.skip(f"'{name}' does not run here: {reason}")
    return target


def runnable() -> list[str]:
    """Return ``host`` and the CPU levels that this machine runs."""
    return ["host", *(n for n in CPUS if why_not_here(load(n).triple, load(n).features) is None)]


def placeholder(name: str, *shape: Any) -> Any:
    """Return a float32 input."""
    return te.placeholder(shape, name=name, dtype="float32")


def run(
    inputs: Sequence[Any],
    output: Any,
    arrays: Sequence[np.ndarray],
    target: Target,
    decisions: Any | None = None,
) -> tuple[Any, str]:
    """Return what the scheduled kernel computes, and the rule that scheduled it.

    `decisions` are those of a rule, which is then the only one to be asked.
    """
    register()
    function = te.create_prim_func([*inputs, output])
    if decisions is None:
        function, rule = schedule_kernel(function, target)
    else:
        function, rule = decided(function, target, decisions)
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    library = tvm.tirx.build(module, target=target.tvm_target(), pipeline=PIPELINE)
    result = tvm.runtime.tensor(np.zeros([int(n) for n in output.shape], str(output.dtype)))
    library["main"](*[tvm.runtime.tensor(np.ascontiguousarray(array)) for array in arrays], result)
    return result.numpy(), rule


def decided(function: tirx.PrimFunc, target: Target, decisions: Any) -> tuple[tirx.PrimFunc, str]:
    """Return `function` scheduled with `decisions` by the rule that they are of, and the rule's name."""
    rule, sch = sys.modules[type(decisions).__module__], Schedule(function)
    assert rule.apply(sch, target, lambda name, space: decisions)
    scheduled = sch.mod["main"].with_attr("tirx.is_scheduled", True)
    return (scheduled.with_attr(ISOLATE, True) if rule.NAME in ISOLATED else scheduled), rule.NAME


def random(*shape: int, seed: int | None = None) -> np.ndarray:
    """Return a standard normal float32 array, fresh in every run unless `seed` is given."""
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def lanes_of(target: Target) -> int:
    """Return the lanes of the blocked layout on `target`."""
    return max(4, target.lanes("float32"))
