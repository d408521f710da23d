"""Proposals: which decisions of a task to measure next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from compiler.schedule.space import from_plain, key, to_plain
from compiler.tune.model import CostModel
from compiler.tune.past import Lesson
from compiler.tune.task import Task

_SMALL = 4096
"""Spaces up to this size are scored whole; in larger ones better decisions evolve from good ones."""

_GENERATIONS, _POPULATION = 4, 512

_BLIND = 0.1
"""The part of each batch that is chosen without the model, which may be wrong."""


class Proposer(Protocol):
    """Proposes decisions for the tasks of one rule."""

    def propose(self, task: Task, count: int, generator: np.random.Generator) -> list[Mapping[str, Any]]:
        """Return up to `count` plain decisions of `task` that were not tried; none if there are no more."""


class Ranked:
    """A `Proposer` that learns from all that was measured of a rule, and proposes what seems fast."""

    def __init__(self, tasks: Sequence[Task], lessons: Sequence[Lesson] = ()) -> None:
        """Propose for `tasks`; `lessons` are what was measured of other kernels by their rule."""
        self._tasks, self._lessons = tasks, lessons
        self._model = CostModel()

    def propose(self, task: Task, count: int, generator: np.random.Generator) -> list[Mapping[str, Any]]:
        """Learn from what is new, then propose."""
        self._model.learn(self._tasks, self._lessons)
        return propose(task, self._model, count, generator)


def propose(
    task: Task, model: CostModel, count: int, generator: np.random.Generator
) -> list[Mapping[str, Any]]:
    """Return up to `count` plain decisions of `task` that were not tried, the default first of all."""
    tried = task.tried
    chosen: list[Mapping[str, Any]] = []

    def take(candidates: Sequence[Mapping[str, Any]], most: int) -> None:
        for plain in candidates:
            if len(chosen) >= most:
                return
            text = key(plain)
            if text not in tried:
                tried.add(text)
                chosen.append(plain)

    take([task.plain_default], count)
    blind = _shuffled(_candidates(task, generator), generator)
    if model.knows and blind:
        pool = blind if task.space.size <= _SMALL else _evolved(task, model, blind, generator)
        order = np.argsort(-model.scores(task, pool), kind="stable")
        take([pool[place] for place in order], max(1, round(count * (1 - _BLIND))))
    take(blind, count)
    return chosen


def _candidates(task: Task, generator: np.random.Generator) -> list[Mapping[str, Any]]:
    """Return all decisions, or of a large space some."""
    space = task.space
    if space.size <= _SMALL:
        return [to_plain(each) for each in space]
    found: list[Mapping[str, Any]] = [to_plain(space.default)]
    for _ in range(_POPULATION * 4):
        values = {name: axis[int(generator.integers(len(axis)))] for name, axis in space.axes.items()}
        decisions = space.replaced(**values)
        if space.legal(decisions):
            found.append(to_plain(decisions))
    return found


def _evolved(
    task: Task, model: CostModel, population: list[Mapping[str, Any]], generator: np.random.Generator
) -> list[Mapping[str, Any]]:
    """Return decisions that the model thinks good: the best of each generation, changed, make the next."""
    good = sorted((record for record in task.records.values() if record.seconds), key=lambda each: each.time)
    pool = [*(record.decisions for record in good[:32]), *population]
    for _ in range(_GENERATIONS):
        order = np.argsort(-model.scores(task, pool), kind="stable")[: _POPULATION // 4]
        parents = [pool[place] for place in order]
        children = [
            _mutated(task, parents[generator.integers(len(parents))], generator) for _ in range(_POPULATION)
        ]
        pool = [*parents, *(child for child in children if child is not None)]
    return pool


def _mutated(
    task: Task, parent: Mapping[str, Any], generator: np.random.Generator
) -> Mapping[str, Any] | None:
    """Return `parent` with one decision moved to a neighbouring value; None where that is not legal."""
    space = task.space
    names = [name for name, axis in space.axes.items() if len(axis) > 1]
    name = names[generator.integers(len(names))]
    axis = list(space.axes[name])
    plain = [to_plain(each) if hasattr(each, "__dataclass_fields__") else each for each in axis]
    place = plain.index(parent[name]) if parent[name] in plain else int(generator.integers(len(axis)))
    step = int(generator.geometric(0.4)) * (1 if generator.random() < 0.5 else -1)
    child = {**parent, name: plain[min(max(place + step, 0), len(axis) - 1)]}
    return child if from_plain(child, space) is not None else None


def _shuffled(items: list[Mapping[str, Any]], generator: np.random.Generator) -> list[Mapping[str, Any]]:
    return [items[place] for place in generator.permutation(len(items))]
