"""Applies the schedule rules to every kernel of a module: the first rule that knows a kernel takes it."""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import tirx
from tvm.s_tir import Schedule

from compiler.schedule import (
    attention,
    channels,
    conv2d,
    fallback,
    lookup,
    matmul,
    rows,
    signs,
    vector_math,
    window,
    winograd,
)
from compiler.schedule.blocks import ISOLATE, with_root
from compiler.schedule.kernel_record import KernelRecord, Origin, record
from compiler.schedule.records import Record
from compiler.schedule.space import Decide, untuned
from compiler.schedule.tuned import Tuned
from compiler.schedule.workload import workload_of
from compiler.target import Target

Rule = Callable[..., bool]
"""Takes a kernel and a target (of `TUNABLE`, also a `Decide`), and tells whether it scheduled the kernel."""

CPU_RULES: tuple[tuple[str, Rule], ...] = (
    (conv2d.NAME, conv2d.apply),
    (window.NAME, window.apply),
    (winograd.NAME, winograd.apply),
    (channels.NAME, channels.apply),
    (matmul.NAME, matmul.apply),
    (attention.NAME, attention.apply),
    (signs.NAME, signs.apply),
    (lookup.NAME, lookup.apply),
    (rows.NAME, rows.apply),
    (fallback.NAME, fallback.apply),
)
"""In the order in which they are asked; the fallback takes any kernel."""

TUNABLE = (attention.NAME, conv2d.NAME, fallback.NAME, matmul.NAME, window.NAME, winograd.NAME)
"""Rules that have something to decide."""

GENERIC = (fallback.NAME, "none")
"""Names where no rule knew the kernel."""

ISOLATED = (attention.NAME, conv2d.NAME, matmul.NAME, winograd.NAME)
"""Rules whose register tiles become functions of their own."""


def schedule(
    mod: tvm.IRModule, target: Target, tuned: Tuned | None = None
) -> tuple[tvm.IRModule, list[KernelRecord]]:
    """Return `mod` with every PrimFunc scheduled for `target`, as `tuned`, and the rule that took each."""
    if target.kind != "cpu":
        from compiler.schedule.gpu import schedule_gpu

        return schedule_gpu(mod, target)
    vector_math.register()
    records: list[KernelRecord] = []
    scheduled = dict(mod.functions_items())
    for variable, function in mod.functions_items():
        if isinstance(function, tirx.PrimFunc) and not function.attrs.get("tirx.is_scheduled", False):
            used: list[Record] = []
            decide: Decide = untuned
            if tuned is not None and tuned.records:
                decide = tuned.decide(workload_of(function), used)
            scheduled[variable], rule = schedule_kernel(function, target, decide)
            origin: Origin = "tuned" if used else "generic" if rule in GENERIC else "default"
            records.append(record(variable.name_hint, rule, function, origin))
    return tvm.IRModule(scheduled, attrs=mod.attrs, global_infos=mod.global_infos), records


def schedule_kernel(
    function: tirx.PrimFunc, target: Target, decide: Decide = untuned
) -> tuple[tirx.PrimFunc, str]:
    """Return `function` scheduled for a CPU as `decide` wants, and the name of the rule that took it."""
    sch, name = schedule_steps(function, target, decide)
    if sch is None:
        return function, name
    scheduled = sch.mod["main"].with_attr("tirx.is_scheduled", True)
    return (scheduled.with_attr(ISOLATE, True) if name in ISOLATED else scheduled), name


def schedule_steps(
    function: tirx.PrimFunc, target: Target, decide: Decide = untuned
) -> tuple[Schedule | None, str]:
    """Return what `schedule_kernel` does, step by step, to ``main``; None where no rule takes `function`."""
    rooted = with_root(function)  # a kernel that is one call, such as a sort, has no root
    for name, rule in CPU_RULES:
        sch = Schedule(rooted)
        if rule(sch, target, decide) if name in TUNABLE else rule(sch, target):
            return sch, name
    return None, "none"
