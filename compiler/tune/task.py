"""A task: one kernel that a network calls, what may be decided about it, and what is known so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm import relax, tirx

from compiler.schedule.apply import GENERIC, schedule_kernel
from compiler.schedule.cost import bytes_of, flops_of
from compiler.schedule.records import Record
from compiler.schedule.space import Space, key, to_plain
from compiler.schedule.workload import workload_of
from compiler.target import Target

_SMALL = 1 << 15
"""Operations, or bytes, of a kernel without a rule that takes a few microseconds however it is scheduled."""


@dataclass(eq=False)
class Task:
    """One kind of kernel.

    Attributes:
        names: of the kernels in the network that do this work.
        workload: see `compiler.schedule.workload`.
        function: one of them, not scheduled yet.
        calls: how often one run of the network calls them.
        constants: for each parameter, whether it is always a constant: a weight.
        rule: the rule that schedules it.
        space: what that may decide.
        flops: operations of one call, None where that is not known.
        bytes: that one call has to move, None where that is not known.
        records: of this session's trials, by their plain decisions as JSON.
        before: the decisions that other sessions tried, as texts.
        best: the fastest record, None before there is one.
        first: the record of the default.
    """

    names: list[str]
    workload: str
    function: Any
    calls: int
    constants: tuple[bool, ...]
    rule: str
    space: Space[Any]
    flops: float | None
    bytes: int | None
    records: dict[str, Record] = field(default_factory=dict)
    before: set[str] = field(default_factory=set)
    best: Record | None = None
    first: Record | None = None

    def take(self, record: Record) -> None:
        """Take in a record of this work; of the same trial the last one counts."""
        self.records[record.trial] = record
        if record.default and record.seconds:
            self.first = record
        fastest = min(self.records.values(), key=lambda each: each.time)
        self.best = fastest if fastest.seconds else None

    @property
    def tried(self) -> set[str]:
        """The decisions that need no other trial, as texts."""
        return self.before | {key(record.decisions) for record in self.records.values()}

    @property
    def time(self) -> float:
        """Seconds of one call with the best decisions so far; infinite before any was measured."""
        return float("inf") if self.best is None else self.best.time

    @property
    def total(self) -> float:
        """Seconds of all calls of one run of the network."""
        return self.calls * self.time

    @property
    def untuned(self) -> float:
        """Seconds of all calls of one run with the default; infinite before it was measured."""
        return float("inf") if self.first is None else self.calls * self.first.time

    @property
    def plain_default(self) -> Mapping[str, Any]:
        """The decisions of untuned code."""
        return to_plain(self.space.default)


def find_tasks(mod: Any, target: Target) -> list[Task]:
    """Return the tasks of an optimized module: kernels whose rule has something to decide, each work once."""
    # What only gives a tensor another shape becomes no call of a kernel.
    calls = _calls(relax.transform.RewriteDataflowReshape()(mod))
    found: dict[str, Task] = {}
    for variable, function in mod.functions_items():
        if not isinstance(function, tirx.PrimFunc) or variable.name_hint not in calls:
            continue
        constants = calls[variable.name_hint]
        workload = workload_of(function)
        if workload in found:
            task = found[workload]
            task.names.append(variable.name_hint)
            task.calls += len(constants)
            continue
        asked = _space(function, target)
        if asked is None or not _worth_a_trial(function, len(constants[0]), *asked):
            continue
        always = tuple(all(each) for each in zip(*constants, strict=True))
        # The output is the last parameter, which calls do not state.
        weights = (*always, *[False] * (len(function.params) - len(always)))
        found[workload] = Task(
            [variable.name_hint], workload, function, len(constants), weights, *asked,
            flops_of(function), bytes_of(function),
        )  # fmt: skip
    return list(found.values())


def _worth_a_trial(function: Any, inputs: int, rule: str, space: Space[Any]) -> bool:
    """Tell whether there is something to decide about a kernel of so many inputs, and to gain by it."""
    if rule in GENERIC:
        work = max(flops_of(function) or 0, bytes_of(function) or 0)
        # Who measures compares one output, and a space of traces takes some time to look at.
        if work < _SMALL or len(function.params) - inputs != 1:
            return False
    return space.size > 1


def _space(function: Any, target: Target) -> tuple[str, Space[Any]] | None:
    asked: list[tuple[str, Space[Any]]] = []

    def listen(rule: str, space: Space[Any]) -> Any:
        asked.append((rule, space))
        return space.default

    schedule_kernel(function, target, listen)
    return asked[-1] if asked else None


def _calls(mod: Any) -> dict[str, list[tuple[bool, ...]]]:
    """Return for each kernel the calls of it: which arguments are constants."""
    found: dict[str, list[tuple[bool, ...]]] = {}
    for function in mod.functions.values():
        if isinstance(function, relax.Function):
            for name, arguments in _kernel_calls(function):
                found.setdefault(name, []).append(
                    tuple(isinstance(each, tvm.ir.GenericConst) for each in arguments)
                )
    return found


def _kernel_calls(function: Any) -> Iterator[tuple[str, Sequence[Any]]]:
    for block in function.body.blocks:
        for binding in block.bindings:
            value = getattr(binding, "value", None)
            if isinstance(value, relax.Call) and getattr(value.op, "name", "") == "relax.call_tir":
                yield value.args[0].name_hint, list(value.args[1].fields)
