"""Which task to try next: the one whose trials promise to make the network faster.

What a batch of trials gained is what the next one may gain, and less each time; and what was tried little may
still hold a surprise (Zheng et al., "Ansor", OSDI 2020, section 6, weigh the same two).
"""

from __future__ import annotations

from collections.abc import Sequence

from compiler.tune.task import Task

_SURPRISE = 0.1
"""The part of a task's time that the first trials may gain beyond what its last batch says."""

_SOON = 16
"""After so many trials, half of that hope is gone."""

_FADES = 0.5
"""How much of a batch's gain the next one is expected to bring."""


class Gains:
    """What batches of trials of each task gained, in seconds of one run of the network."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks
        self._last = dict.fromkeys(tasks, 0.0)
        self._exhausted: set[Task] = set()

    def saw(self, task: Task, before: float, trials: int) -> None:
        """Hear that `trials` brought a task from `before` to its total time now."""
        if not trials:
            self._exhausted.add(task)
            return
        gain = max(0.0, before - task.total) / trials
        self._last[task] = max(gain, self._last[task] * _FADES)

    def expected(self, task: Task) -> float:
        """Return how many seconds a trial of a task may gain in one run of the network."""
        if task in self._exhausted or task.best is None:
            return 0.0
        tried = len(task.tried)
        hope = _SURPRISE * task.total / _SOON * (_SOON / (_SOON + tried)) ** 2
        return self._last[task] * _FADES + hope

    def next(self) -> Task | None:
        """Return the task that promises most, None if none promises anything."""
        best = max(self._tasks, key=self.expected)
        return best if self.expected(best) > 0 else None

    def left(self, trials: int) -> float:
        """Return the seconds that `trials` more may gain in one run of the network, at best."""
        return max((self.expected(task) for task in self._tasks), default=0.0) * trials
