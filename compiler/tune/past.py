"""What is known before a tuning begins: of earlier sessions, of other kernels, and of similar devices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compiler.schedule.records import Record, comparable, latest
from compiler.schedule.space import from_plain, to_plain
from compiler.tune.task import Task

_HINTS = 3
"""How many of another device's best decisions are tried."""

_OF_WORK = 128
"""The most records of one kernel that are learned from: evenly spread from the fastest to the slowest."""

_OF_RULE = 2048
"""The most records of one rule: all learning together may take no more than a small part of a tuning."""

_FAR = 0.3
"""How much another device's ranking counts, next to this one's."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What was measured of one kind of kernel on one device: its records are ranked among each other.

    Attributes:
        workload: see `compiler.schedule.workload`.
        flops: operations of one call, 0 where they are not known.
        bytes: that one call has to move, not a number where no record says it.
        records: of several decisions.
        weight: how much the ranking counts.
    """

    workload: str
    flops: float
    bytes: float
    records: Sequence[Record]
    weight: float = 1.0


def lesson_of(task: Task) -> Lesson:
    """Return what was measured of a task so far."""
    return Lesson(task.workload, task.flops or 0.0, task.bytes or 0.0, list(task.records.values()))


@dataclass(frozen=True)
class Past:
    """What earlier tunings say about a new one.

    Attributes:
        lessons: by rule, of other sessions, kernels and devices.
        hints: by workload, the plain decisions that were best there.
    """

    lessons: Mapping[str, Sequence[Lesson]] = field(default_factory=dict)
    hints: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


def past_of(
    tasks: Sequence[Task],
    records: Iterable[Record],
    similar: Iterable[Record],
    device: str,
    threads: int,
    session: str | None = None,
) -> Past:
    """Return what `records` and `similar` say about the tuning of `tasks` on `threads` threads of `device`.

    `records` of `device` count whole; those on another count of threads, and the `similar` ones of other
    devices, less. The best of all of them give hints. Other devices' among `records` have no say, and what
    `session` measured of `tasks` they hold themselves.
    """
    here = [record for record in records if record.device == device and record.session != session]
    every = [*similar, *here]
    known = {task.workload: task for task in tasks}
    hints: dict[str, list[Mapping[str, Any]]] = {}
    for (workload, *_), group in comparable(every).items():
        if workload in known:
            hints.setdefault(workload, []).extend(_best_few(known[workload], group))
    lessons: dict[str, list[Lesson]] = {task.rule: [] for task in tasks}
    for group in _sessions(every):
        workload, of_device, of_threads = group[0].key
        weight = 1.0 if (of_device, of_threads) == (device, threads) else _FAR
        for rule in {record.rule for record in group} & lessons.keys():
            of_rule = _spread([record for record in group if record.rule == rule])
            lessons[rule].append(Lesson(workload, of_rule[0].flops, math.nan, of_rule, weight))
    return Past({rule: _cut(found) for rule, found in lessons.items()}, {w: h for w, h in hints.items() if h})


def _sessions(records: Sequence[Record]) -> list[list[Record]]:
    """Return the latest record of each trial, those of each work and session together: they can be ranked."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in latest(records).values():
        groups.setdefault((*record.key, record.session), []).append(record)
    return list(groups.values())


def _best_few(task: Task, records: Sequence[Record]) -> list[Mapping[str, Any]]:
    """Return the fastest decisions of `records` that are legal here too, and not the default."""
    found: list[Mapping[str, Any]] = []
    for record in sorted(records, key=_time):
        decisions = from_plain(record.decisions, task.space) if record.rule == task.rule else None
        if record.seconds and decisions is not None and decisions != task.space.default:
            found.append(to_plain(decisions))
    return found[:_HINTS]


def _spread(records: Sequence[Record]) -> list[Record]:
    ordered = sorted(records, key=_time)
    step = max(1, math.ceil(len(ordered) / _OF_WORK))
    return ordered[::step]


def _cut(lessons: Sequence[Lesson]) -> list[Lesson]:
    """Return as many lessons as may be learned from, this device's first."""
    kept, count = [], 0
    for lesson in sorted(lessons, key=lambda each: -each.weight):
        count += len(lesson.records)
        if count > _OF_RULE:
            break
        kept.append(lesson)
    return kept


def _time(record: Record) -> float:
    return record.time
