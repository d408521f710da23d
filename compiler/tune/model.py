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

    def learn(self, tasks: Sequence[Task]) -> None:
        """Learn from all records of `tasks`, which have one rule, if enough of them are new."""
        count = sum(len(task.records) for task in tasks)
        # Each time about a quarter more: all of the learning costs as much as the last few times.
        if count < max(_LEAST, self._learned * 1.25):
            return
        import xgboost

        rows, speeds, groups = [], [], []
        for number, task in enumerate(tasks):
            for record in task.records.values():
                rows.append(features(task, record.decisions))
                speeds.append(task.time / record.time if record.seconds else 0.0)
                groups.append(number)
        data, labels, of_task = np.array(rows, np.float32), np.array(speeds, np.float32), np.array(groups)
        self._members = []
        for seed in range(_MEMBERS):
            generator = np.random.default_rng(seed)
            kept = np.sort(generator.choice(len(labels), max(_LEAST, len(labels) * 4 // 5), replace=False))
            matrix = xgboost.DMatrix(data[kept], labels[kept], qid=of_task[kept])
            self._members.append(xgboost.train({**_PARAMETERS, "seed": seed}, matrix, _ROUNDS))
        self._learned = count

    @property
    def knows(self) -> bool:
        """Whether anything was learned yet."""
        return bool(self._members)

    def scores(self, task: Task, decisions: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Return how promising each of the plain `decisions` is, as float32: higher is better."""
        import xgboost

        matrix = xgboost.DMatrix(np.array([features(task, each) for each in decisions], np.float32))
        found = np.stack([member.predict(matrix) for member in self._members])
        return np.asarray(found.mean(0) + _CURIOSITY * found.std(0), np.float32)


def features(task: Task, decisions: Mapping[str, Any]) -> list[float]:
    """Return what the model is told: the decisions and the extents of the work, as logarithms."""
    extents = [int(number) for number in re.findall(r"\d+", task.workload.split("#")[0])]
    padded = (extents + [0] * _EXTENTS)[:_EXTENTS]
    work = [*padded, task.flops or 0, task.bytes or 0]
    return [math.log2(1 + value) for value in (*_numbers(decisions), *work)]


def _numbers(plain: Any) -> Iterator[float]:
    """Yield the numbers in decisions, in the order of their names."""
    if isinstance(plain, Mapping):
        for name in sorted(plain):
            yield from _numbers(plain[name])
    else:
        yield -1 / 2 if plain is None else float(plain)
