"""Records as MetaSchedule's own database has them, and back.

Such a database holds kernels, traces and times, but no decisions: so what goes into it is the trace that the
decisions lead to, and what comes out of it serves kernels without a rule alone, whose decisions are traces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from compiler.schedule.apply import GENERIC, schedule_steps
from compiler.schedule.blocks import with_root
from compiler.schedule.records import Record
from compiler.schedule.space import from_plain, to_plain
from compiler.schedule.traces import Traced, traced
from compiler.schedule.tuned import Tuned
from compiler.schedule.vector_math import register
from compiler.support.errors import InputError
from compiler.support.files import atomic_path
from compiler.target import Target
from compiler.tune.task import Task
from compiler.tune.tuner import Facts

WORKLOADS, RECORDS = "database_workload.json", "database_tuning_record.json"
"""The files of a database in its folder."""

_NAMES = ("global_symbol", "op_pattern")
"""Attributes that say nothing of what a kernel computes."""

_FAILED = 1e9
"""Seconds from which on MetaSchedule means that a trial failed."""


@dataclass(frozen=True)
class Moved:
    """What went over, and why the rest did not: how many records for each reason."""

    records: Sequence[Record] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)


def to_database(tasks: Sequence[Task], tuned: Tuned, target: Target, folder: Path) -> Moved:
    """Write the best record of each of `tasks` to a new database in `folder`.

    Raises:
        UsageError: it cannot be written.
    """
    register()
    moved: list[Record] = []
    skipped: Counter[str] = Counter()
    with atomic_path(folder / WORKLOADS) as workloads, atomic_path(folder / RECORDS) as records:
        database = ms.database.JSONDatabase(str(workloads), str(records))
        for task in tasks:
            used: list[Record] = []
            sch, _ = schedule_steps(task.function, target, tuned.decide(task.workload, used))
            mod = _workload(task.function)
            if not used:
                skipped["kernels without a record"] += 1
            elif sch is None or not _leads_to(sch, mod):
                skipped["schedules that are more than TVM's steps"] += 1
            else:
                _commit(database, mod, sch, used[0], target)
                moved += used
    return Moved(moved, skipped)


def from_database(folder: Path, tasks: Sequence[Task], target: Target, facts: Facts) -> Moved:
    """Return the records that a database holds of those of `tasks` that no rule knows.

    They say `facts`, for the database does not.

    Raises:
        InputError: there is no database, or it is damaged.
    """
    known = {tvm_ffi.structural_hash(_bare(_workload(task.function))): task for task in tasks}
    moved: list[Record] = []
    skipped: Counter[str] = Counter()
    for each in _read(folder):
        task = known.get(tvm_ffi.structural_hash(_bare(each.workload.mod)))
        seconds = tuple(float(value) for value in each.run_secs or ())
        decisions = traced(each.trace)
        if task is None:
            skipped["of kernels that the model has not"] += 1
        elif not _same_device(each.target, target):
            skipped["of another target"] += 1
        elif task.rule not in GENERIC:
            skipped["of kernels that a rule of Kiln's schedules"] += 1
        elif not seconds or not all(0 < value < _FAILED for value in seconds):
            skipped["of trials that failed"] += 1
        elif from_plain(to_plain(decisions), task.space) is None:
            skipped["whose steps this TVM cannot apply"] += 1
        else:
            moved.append(_record(task, decisions, seconds, facts))
    return Moved(moved, skipped)


def _record(task: Task, decisions: Traced, seconds: tuple[float, ...], facts: Facts) -> Record:
    return facts.record(
        workload=task.workload,
        rule=task.rule,
        decisions=to_plain(decisions),
        seconds=seconds,
        calls=task.calls,
        flops=task.flops or 0.0,
        note="from a database of MetaSchedule's",
    )


def _workload(function: Any) -> Any:
    """Return a kernel as MetaSchedule looks it up."""
    return tvm.get_global_func("tvm.s_tir.meta_schedule.normalize_mod")(with_root(function))


def _bare(mod: Any) -> Any:
    """Return the kernel of a workload without what other ways to make it may say or not."""
    function = mod["main"]
    for name in _NAMES:
        function = function.without_attr(name)
    return function


def _leads_to(sch: Schedule, mod: Any) -> bool:
    """Tell whether the steps of `sch`, and they alone, make of `mod` what it has."""
    again = Schedule(mod)
    try:
        sch.trace.apply_to_schedule(again, remove_postproc=False)
    except Exception:  # TVM refuses by many kinds of errors
        return False
    return bool(tvm_ffi.structural_equal(_bare(again.mod), _bare(sch.mod)))


def _commit(database: Any, mod: Any, sch: Schedule, record: Record, target: Target) -> None:
    database.commit_tuning_record(
        ms.database.TuningRecord(
            sch.trace,
            database.commit_workload(mod),
            list(record.seconds),
            target.tvm_target(),
            ms.arg_info.ArgInfo.from_prim_func(mod["main"]),
        )
    )


def _read(folder: Path) -> Iterator[Any]:
    for name in (WORKLOADS, RECORDS):
        if not (folder / name).is_file():
            raise InputError(f"expected a database of MetaSchedule's in '{folder}', there is no '{name}'")
    try:
        database = ms.database.JSONDatabase(work_dir=str(folder), allow_missing=False)
        yield from database.get_all_tuning_records()
    except Exception as error:  # TVM checks the lines, and says what it expected by many kinds of errors
        reason = str(error).strip().splitlines()[-1][:200]
        raise InputError(f"cannot read the database of MetaSchedule's in '{folder}': {reason}") from error


def _same_device(described: Any, target: Target) -> bool:
    """Tell whether a database's target is this one, as far as it says: its kind and CPU."""
    own = target.tvm_target()
    return described is not None and _kind(described) == _kind(own)


def _kind(target: Any) -> tuple[str, str]:
    return str(target.kind), str(target.attrs.get("mcpu", ""))
