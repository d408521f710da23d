"""Schedules every kernel for a GPU: TVM's dlight rules in order, then a fallback that takes any kernel.

A rule's schedule is kept only if it fits the device (`compiler.schedule.gpu_limits`); otherwise the next
rule is asked. So a kernel is never left without threads, and never over the device's limits.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import types
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.s_tir import Schedule, dlight

from compiler.schedule import gpu_bind
from compiler.schedule.gpu_limits import fits
from compiler.schedule.kernel_record import KernelRecord, record
from compiler.support.errors import BuildError
from compiler.target import Target

SCHEDULED = "tirx.is_scheduled"
LIBRARY = "topi"
"""The rule's name of a kernel that TVM's operator library wrote with threads (sort, scan)."""

RULES = (
    dlight.gpu.Matmul,
    dlight.gpu.GEMV,
    dlight.gpu.Reduction,
    dlight.gpu.GeneralReduction,
    dlight.gpu.Transpose,
    dlight.gpu.Fallback,
)
"""TVM's rules in the order in which they are asked; the first that knows a kernel and fits takes it."""


def schedule_gpu(mod: tvm.IRModule, target: Target) -> tuple[tvm.IRModule, list[KernelRecord]]:
    """Return `mod` with every PrimFunc bound to threads for `target`, and the rule that took each.

    Raises:
        BuildError: a kernel calls a function of the CPU, or no schedule of it fits the device.
    """
    if target.kind == "metal":
        _import_simdgroup_intrinsics()
    records: list[KernelRecord] = []
    scheduled = dict(mod.functions_items())
    with target.tvm_target():
        for variable, function in mod.functions_items():
            if isinstance(function, tirx.PrimFunc):
                scheduled[variable], rule = schedule_kernel(function, target, variable.name_hint)
                records.append(record(variable.name_hint, rule, function))
    return tvm.IRModule(scheduled, attrs=mod.attrs, global_infos=mod.global_infos), records


def schedule_kernel(function: tirx.PrimFunc, target: Target, name: str) -> tuple[tirx.PrimFunc, str]:
    """Return the kernel `name` bound to threads of `target`'s accelerator, and the rule that took it.

    Raises:
        BuildError: it calls a function of the CPU, or no schedule of it fits the device.
    """
    if called := _cpu_calls(function):
        raise BuildError(
            f"the kernel '{name}' calls '{called[0]}', which runs on a CPU only: "
            f"no code for {target.kind} can be made; compile for a CPU target"
        )
    if gpu_bind.has_threads(function.body) and fits(function, target):
        return function.with_attr(SCHEDULED, True), LIBRARY
    function = scalar_conditions(function.without_attr(SCHEDULED))
    for rule in RULES:
        sch = _try(rule(), function, target)
        if sch is not None and fits(sch.mod["main"], target):
            return sch.mod["main"].with_attr(SCHEDULED, True), f"dlight.{rule.__name__}"
    sch = gpu_bind.apply(function, target)
    if not fits(sch.mod["main"], target):
        raise BuildError(
            f"no schedule of the kernel '{name}' fits '{target.name}' ({target.kind}): "
            "compile for a CPU target, or report the model"
        )
    return sch.mod["main"].with_attr(SCHEDULED, True), gpu_bind.NAME


def scalar_conditions(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return `function` with ``if_then_else`` for every ``Select``.

    Where a Select of vectors has one condition for all lanes, TVM's code generators for C write a vector of
    conditions that no compiler takes (``float2 c = make_ushort2(a < b, a < b)``).
    """

    def change(select: Any) -> Any:
        return tirx.if_then_else(select.condition, select.true_value, select.false_value)

    return function.with_body(tvm_ffi.structural_map(function.body, [(tirx.Select, change)]))


def _try(rule: Any, function: tirx.PrimFunc, target: Target) -> Schedule | None:
    """Return the schedule that a dlight rule makes, ``None`` if it does not know the kernel."""
    try:
        found = rule.apply(function, target.tvm_target(), False)
    except Exception:  # a rule that fails half-way has not known the kernel, by whatever kind of error
        return None
    return found[0] if isinstance(found, list) else found


def _cpu_calls(function: tirx.PrimFunc) -> list[str]:
    """Return the names of packed functions that `function` calls; a GPU's kernel can call none."""
    names: list[str] = []

    def visit(call: Any) -> None:
        if isinstance(call.op, tvm.ir.Op) and call.op.name in (
            "tirx.tvm_call_packed",
            "tirx.tvm_call_cpacked",
        ):
            names.append(str(getattr(call.args[0], "value", call.args[0])))

    tvm_ffi.structural_walk(function.body, [(tvm.ir.Call, visit)], order="pre")
    return names


def _import_simdgroup_intrinsics() -> None:
    """Register the matrix intrinsics that dlight uses on Metal.

    They are parsed from Python functions, and each parse looks up the module of every frame on the stack.
    For a frame of Python's own import machinery `inspect` searches all loaded modules, every time: with
    torch loaded that takes 47 s. An entry in its table of files makes it 8 s, and an empty module in place of
    the package, whose own code parses the intrinsics of all other devices, 1 s.
    """
    package = "tvm.s_tir.tensor_intrin"
    if f"{package}.metal" in sys.modules:
        return
    for name in ("_bootstrap", "_bootstrap_external"):
        file = os.path.normcase(os.path.abspath(f"<frozen importlib.{name}>"))
        inspect.modulesbyfile.setdefault(file, f"importlib.{name}")
    there = sys.modules.get(package)
    if there is None:
        empty = sys.modules[package] = types.ModuleType(package)
        empty.__path__ = [str(Path(tvm.s_tir.__file__).parent / "tensor_intrin")]
    try:
        importlib.import_module(f"{package}.metal")
    finally:
        if there is None:
            del sys.modules[package]
