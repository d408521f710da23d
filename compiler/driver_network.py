"""The driver's fifth page: the fastest schedules of each kernel are measured once more, where they will run.

Alone, a kernel finds what it reads where its own threads left it; in the network other kernels wrote that, by
other threads, and other memory is in the caches. So the network is built once for each rank of the leaders,
and watched while it runs. What comes of it are records of the rule ``choice``, see
`compiler.schedule.tuned.in_network`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from compiler import frontend
from compiler.deploy import Session as DeviceSession
from compiler.deploy.peak import results_in_turns
from compiler.deploy.profile import kernel_seconds
from compiler.driver import build_module
from compiler.frontend.random_inputs import fresh_inputs
from compiler.schedule.log import Log
from compiler.schedule.records import AGAIN, CHOICE, Record
from compiler.schedule.tuned import MARGIN, Tuned, in_network
from compiler.support.progress import note
from compiler.target import Target
from compiler.tune.bench import FINEST, spread
from compiler.tune.budget import Budget
from compiler.tune.task import Task
from compiler.tune.tuner import Facts, now

RANKS = 3
"""How many of each kernel's fastest are measured, beside the default."""

SECONDS = 3.0
"""How long each network is watched."""

_BURSTS = 6
"""In how many turns."""

_LEAST_TRIALS, _LEAST_SECONDS = 300, 120.0
"""The shortest session at whose end this is done: the network is built several times for it."""


def has_time(budget: Budget) -> bool:
    """Tell whether a session is long enough to measure in the network."""
    return budget.has(_LEAST_TRIALS, _LEAST_SECONDS)


def measure_in_network(
    model: frontend.Model,
    target: Target,
    path: Path,
    tasks: Sequence[Task],
    chosen: Tuned,
    facts: Facts,
    folder: Path,
    spent: float,
) -> None:
    """Measure the fastest schedules of `tasks` in the network, and the default ones; log what comes of it.

    Args:
        model: as imported, quantized where it is to be.
        target: the device, which is this machine.
        path: of the log.
        tasks: the network's, tuned.
        chosen: how the graph is made.
        facts: of the session.
        folder: for libraries.
        spent: seconds of the session so far.

    Raises:
        UsageError: the log cannot be written.
    """
    options = {task: found for task in tasks if len(found := _options(task, chosen)) > 1}
    if not options:
        return
    arrays = fresh_inputs(model, 0)
    runs, names = [], [name for task in options for name in task.names]
    for rank in range(max(len(found) for found in options.values())):
        at_rank = {task: found[rank] for task, found in options.items() if rank < len(found)}
        built, _ = build_module(model.mod, target, folder / str(rank), tuned=_pinned(chosen, at_rank))
        session = DeviceSession(built.library, model.signature, threads=facts.threads)
        runs.append(_watch(session, session.prepare(arrays), names))
    times = in_turns(runs, SECONDS)
    with Log(path) as log:
        kept = 0
        for task, found in options.items():
            seconds = [_of(task, times[rank]) for rank in range(len(found))]
            for record in _records(task, found, seconds, facts, spent):
                log.append(record)
            first, fastest = statistics.median(seconds[0]), min(map(statistics.median, seconds))
            kept += fastest > (1 - MARGIN) * first
    note(f"in the network {kept} of {len(options)} kernels are fastest with their default schedules")


def _options(task: Task, chosen: Tuned) -> list[Mapping[str, Any]]:
    """Return the decisions that are worth a look: the default, the fastest, and what was used until now."""
    if task.first is None or task.best is None:
        return []
    fastest = sorted((each for each in task.records.values() if each.seconds), key=lambda each: each.time)
    found = [task.plain_default]
    if task.best is not task.first:
        found += [each.decisions for each in fastest[:RANKS]]
    before = chosen.records.get(in_network(task.workload))
    if before is not None and task.rule in before.decisions:
        found.append(before.decisions[task.rule])
    return [each for place, each in enumerate(found) if each not in found[:place]]


def _pinned(chosen: Tuned, decisions: Mapping[Task, Mapping[str, Any]]) -> Tuned:
    """Return what makes the graph as `chosen`, and schedules kernels by `decisions`, others untuned."""
    records = {
        name: each
        for name, each in chosen.records.items()
        if each.rule == CHOICE and not name.startswith(in_network(""))
    }
    for task, plain in decisions.items():
        assert task.first is not None
        records[task.workload] = replace(task.first, decisions=plain, default=plain == task.plain_default)
    return Tuned(records)


def _watch(
    session: DeviceSession, prepared: Sequence[Any], names: Sequence[str]
) -> Callable[[], dict[str, float]]:
    kernels = frozenset(names)
    return lambda: kernel_seconds(session, prepared, kernels)


def in_turns(runs: Sequence[Callable[[], dict[str, float]]], seconds: float) -> list[dict[str, list[float]]]:
    """Return for each of `runs` the times of each of its kernels: a median for each turn.

    A turn takes `seconds` over the count of turns, and its first run does not count.
    """
    return [
        {name: [statistics.median(each[name] for each in turn) for turn in turns] for name in turns[0][0]}
        for turns in results_in_turns(runs, seconds, _BURSTS, least=2)
    ]


def _of(task: Task, times: Mapping[str, Sequence[float]]) -> tuple[float, ...]:
    """Return the seconds of a call of a task by the turn: the mean over its calls."""
    turns = zip(*(times[name] for name in task.names), strict=True)
    return tuple(max(FINEST, sum(each) / task.calls) for each in turns)


def _records(
    task: Task,
    options: Sequence[Mapping[str, Any]],
    seconds: Sequence[tuple[float, ...]],
    facts: Facts,
    spent: float,
) -> list[Record]:
    return [
        facts.record(
            workload=in_network(task.workload),
            rule=CHOICE,
            decisions={task.rule: plain},
            seconds=each,
            noise=spread(each),
            default=plain == task.plain_default,
            calls=0,
            at=now(),
            note=AGAIN,
            spent=round(spent, 3),
        )
        for plain, each in zip(options, seconds, strict=True)
    ]
