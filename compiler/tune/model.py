"""The cost model: which decisions are worth a measurement, learned from all that was measured on the device.

Trees that rank the trials of each task by their speed (XGBoost, Chen and Guestrin, KDD 2016, used as Chen et
al. do in "Learning to Optimize Tensor Programs", NeurIPS 2018). There are several, each trained on others of
the trials: where they disagree, little is known (Lakshminarayanan et al., "Simple and Scalable Predictive
Uncertainty Estimation using Deep Ensembles", NeurIPS 2017).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from compiler.tune.past import Lesson, lesson_of
from compiler.tune.task import Task

_MEMBERS = 4
_ROUNDS = 40
_PARAMETERS = {
    "objective": "rank:pairwise",
    "max_depth": 6,
    "eta": 0.2,
    "subsample": 0.8,
    "colsample_bynode": 0.8,
    "min_child_weight": 1,
    "verbosity": 0,
    "nthread": 1,
}
_CURIOSITY = 0.5
"""How many standard deviations of its scores a trial is credited with: what is not known may be good."""

_LEAST = 8
"""Trials of a rule below which there is nothing to learn from."""

_EXTENTS = 20
"""How many numbers of a workload's name are told to the model."""


class CostModel:
    """Ranks decisions of one rule; learns from the records of all tasks of that rule."""

    def __init__(self) -> None:
        self._members: list[Any] = []
        self._learned = 0

    def learn(self, tasks: Sequence[Task], lessons: Sequence[Lesson] = ()) -> None:
        """Learn from all records of `tasks`, which have one rule, if enough of them are new.

        `lessons` are what was measured of other kernels or elsewhere: with them it begins to know.
        """
        count = sum(len(task.records) for task in tasks)
        # Each time about a quarter more: all of the learning costs as much as the last few times.
        if (self.knows or not lessons) and count < max(_LEAST, self._learned * 1.25):
            return
        data = _Data(len(features(lesson_of(tasks[0]), tasks[0].plain_default)))
        for lesson in (*map(lesson_of, tasks), *lessons):
            data.add(lesson)
        if len(data.rows) < _LEAST:
            return
        self._members = [_trained(data, seed) for seed in range(_MEMBERS)]
        self._learned = count

    @property
    def knows(self) -> bool:
        """Whether anything was learned yet."""
        return bool(self._members)

    def scores(self, task: Task, decisions: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Return how promising each of the plain `decisions` is, as float32: higher is better."""
        import xgboost

        about = lesson_of(task)
        matrix = xgboost.DMatrix(np.array([features(about, each) for each in decisions], np.float32))
        found = np.stack([member.predict(matrix) for member in self._members])
        return np.asarray(found.mean(0) + _CURIOSITY * found.std(0), np.float32)


class _Data:
    """What a model learns from: features, speeds relative to the fastest of the same kernel, groups."""

    def __init__(self, width: int) -> None:
        self._width = width
        self.rows: list[list[float]] = []
        self.speeds: list[float] = []
        self.groups: list[int] = []
        self.weights: list[float] = []

    def add(self, lesson: Lesson) -> None:
        """Take in a lesson; records of decisions that another Kiln had are of no use."""
        fastest = min((record.time for record in lesson.records), default=math.inf)
        for record in lesson.records:
            try:
                row = features(lesson, record.decisions)
            except (TypeError, ValueError):  # decisions that are no numbers
                continue
            if len(row) == self._width:
                self.rows.append(row)
                self.speeds.append(fastest / record.time if record.seconds else 0.0)
                self.groups.append(len(self.weights))
        self.weights.append(lesson.weight)


def _trained(data: _Data, seed: int) -> Any:
    """Return trees that learned from four fifths of `data`."""
    import xgboost

    count = len(data.rows)
    chosen = np.random.default_rng(seed).choice(count, max(_LEAST, count * 4 // 5), replace=False)
    kept = np.sort(chosen)
    groups = np.array(data.groups)[kept]
    rows, speeds = np.array(data.rows, np.float32)[kept], np.array(data.speeds, np.float32)[kept]
    weights = np.array(data.weights, np.float32)[np.unique(groups)]  # one of each group that is there
    matrix = xgboost.DMatrix(rows, speeds, qid=groups, weight=weights)
    return xgboost.train({**_PARAMETERS, "seed": seed}, matrix, _ROUNDS)


def features(work: Lesson, decisions: Mapping[str, Any]) -> list[float]:
    """Return what the model is told: the decisions and the extents of the work, as logarithms."""
    extents = [int(number) for number in re.findall(r"\d+", work.workload.split("#")[0])]
    padded = (extents + [0] * _EXTENTS)[:_EXTENTS]
    facts = [*padded, work.flops, work.bytes]
    return [math.log2(1 + value) for value in (*_numbers(decisions), *facts)]


def _numbers(plain: Any) -> Iterator[float]:
    """Yield the numbers in decisions, in the order of their names."""
    if isinstance(plain, Mapping):
        for name in sorted(plain):
            yield from _numbers(plain[name])
    else:
        yield -1 / 2 if plain is None else float(plain)
