"""Runs one kernel of a rule on this machine: schedule, build, call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import te

from compiler.schedule.apply import schedule_kernel
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


def run(inputs: Sequence[Any], output: Any, arrays: Sequence[np.ndarray], target: Target) -> tuple[Any, str]:
    """Return what the scheduled kernel computes, and the rule that scheduled it."""
    register()
    function, rule = schedule_kernel(te.create_prim_func([*inputs, output]), target)
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    library = tvm.tirx.build(module, target=target.tvm_target())
    result = tvm.runtime.tensor(np.zeros([int(n) for n in output.shape], str(output.dtype)))
    library["main"](*[tvm.runtime.tensor(np.ascontiguousarray(array)) for array in arrays], result)
    return result.numpy(), rule


def random(*shape: int, seed: int | None = None) -> np.ndarray:
    """Return a standard normal float32 array, fresh in every run unless `seed` is given."""
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def lanes_of(target: Target) -> int:
    """Return the lanes of the blocked layout on `target`."""
    return max(4, target.lanes("float32"))
