"""Proposals for kernels without a rule: MetaSchedule samples traces and changes the best of those measured.

Its own search ranks thousands of them by trees that it trains for seconds after each batch. Here the traces
of a generation are few and not ranked: to measure them takes less time than to learn which to leave out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tvm.s_tir import meta_schedule as ms

from compiler.schedule.space import key, to_plain
from compiler.schedule.traces import TraceSpace, traced, tune_context
from compiler.tune.task import Task

_POPULATION, _NEW, _GENERATIONS = 32, 16, 1
"""Of each batch: how many traces there are, at least how many of these are sampled anew, and how often they
are changed."""

_MEASURED = 0.4
"""The part of a population that begins with what was measured to be fast."""

_BATCH = 16
_ATTEMPTS = 4
"""How many batches may be asked for until one has a trace that was not tried."""

_ANY_NUMBER = 1 << 30


class Evolved:
    """A `Proposer` for tasks whose space is a `TraceSpace`."""

    def __init__(self) -> None:
        self._searches: dict[Task, _Search] = {}

    def propose(self, task: Task, count: int, generator: np.random.Generator) -> list[Mapping[str, Any]]:
        """Return up to `count` plain decisions that no record of `task` has, the default first of all."""
        if task.first is None and key(task.plain_default) not in task.tried:
            return [task.plain_default]
        if task not in self._searches:
            self._searches[task] = _Search(task.space, int(generator.integers(1, 1 << 30)))
        return self._searches[task].propose(task, count)


class _Search:
    """MetaSchedule's evolutionary search for one kernel, fed with the records of a task."""

    def __init__(self, space: Any, seed: int) -> None:
        self._space: TraceSpace = space
        self._strategy = ms.search_strategy.EvolutionarySearch(
            population_size=_POPULATION,
            init_measured_ratio=_MEASURED,
            init_min_unmeasured=_NEW,
            genetic_num_iters=_GENERATIONS,
        )
        context = tune_context(space, self._strategy, seed)
        self._database = ms.database.MemoryDatabase()
        self._workload = self._database.commit_workload(space.mod)
        self._arguments = ms.arg_info.ArgInfo.from_prim_func(space.mod["main"])
        self._told: set[str] = set()
        context.pre_tuning(
            _ANY_NUMBER, _BATCH, space.designs(), self._database, ms.cost_model.CostModel.create("random")
        )
        self._context = context  # the strategy itself does not keep it alive

    def propose(self, task: Task, count: int) -> list[Mapping[str, Any]]:
        """Return up to `count` traces that were not tried, none when MetaSchedule finds no more."""
        self._tell(task)
        tried = task.tried
        found: list[Mapping[str, Any]] = []
        for _ in range(_ATTEMPTS):
            candidates = self._strategy.generate_measure_candidates()
            if candidates is None:
                break
            # It reads no results here, but what is in the database; it counts them, though.
            self._strategy.notify_runner_results(
                candidates, [ms.runner.RunnerResult(None, "not measured yet")] * len(candidates)
            )
            for candidate in candidates:
                plain = to_plain(traced(candidate.sch.trace))
                if key(plain) not in tried:
                    tried.add(key(plain))
                    found.append(plain)
            if found:
                break
        return found[:count]

    def _tell(self, task: Task) -> None:
        """Let the search know what was measured since it was last told, also in earlier sessions."""
        for name, record in task.records.items():
            trace = record.decisions.get("trace")
            if name in self._told or trace is None or not record.seconds:
                continue
            self._told.add(name)
            sch = self._space.scheduled(trace)
            if sch is not None:
                self._database.commit_tuning_record(
                    ms.database.TuningRecord(
                        sch.trace, self._workload, [record.time], self._context.target, self._arguments
                    )
                )
