"""The search: propose, measure, record, learn, until the budget is spent or nothing is to be gained.

defaults   every task's untuned decisions, so that all gains can be told
known      what was best in earlier sessions and elsewhere: times of another day cannot be compared
batches    the task that promises most gets a batch of trials
leaders    the best few of each task once more, in turns: the luckiest measurement must not win
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from compiler.schedule.records import AGAIN, Record
from compiler.schedule.space import from_plain, key
from compiler.schedule.traces import TraceSpace
from compiler.tune.allocate import Gains
from compiler.tune.budget import Budget
from compiler.tune.evolve import Evolved
from compiler.tune.past import Past
from compiler.tune.propose import Proposer, Ranked
from compiler.tune.task import Task
from compiler.tune.trial import Outcome, Trial

_BATCH = 16
_LEADERS = 3
_TURNS = 3
"""How often each leader is measured at the end."""

_NEGLIGIBLE = 0.0005
"""The part of the network's time below which another batch is not worth its while."""


class Measures(Protocol):
    """Who measures: see `compiler.tune.workers.Workers`."""

    def measure(self, trials: Sequence[Trial], best: Callable[[int], float]) -> Iterator[tuple[int, Outcome]]:
        """Yield the place of each trial and what came of it."""


class Keeps(Protocol):
    """Who keeps records: see `compiler.schedule.log.Log`."""

    path: Path

    def append(self, record: Record) -> None:
        """Keep a record, whatever happens next."""


class Listener(Protocol):
    """Who is told how it goes."""

    def started(self, tuner: Tuner) -> None:
        """Hear who tunes, before anything else."""

    def saw(self, task: Task, record: Record) -> None:
        """Hear of a trial."""

    def phase(self, name: str) -> None:
        """Hear that another part of the search begins."""


@dataclass(frozen=True)
class Facts:
    """What every record of a session says: see `compiler.schedule.records.Record`."""

    device: str
    threads: int
    cpu: str
    kiln: str
    tvm: str
    session: str

    def record(self, **own: Any) -> Record:
        """Return a record of this session; `own` is what it says itself."""
        return Record(
            device=self.device, threads=self.threads, cpu=self.cpu, kiln=self.kiln, tvm=self.tvm,
            session=self.session, **own,
        )  # fmt: skip


def now() -> str:
    """Return the time as records say it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def recall(tasks: Sequence[Task], records: Iterable[Record], facts: Facts) -> tuple[int, float]:
    """Give tasks what this session recorded of them; return its trials and seconds so far.

    What others tried is not tried again, but their times are of other days. Decisions that are not legal any
    more, for another Kiln had them, are of no use.
    """
    known = {task.workload: task for task in tasks}
    trials, spent = 0, 0.0
    for record in records:
        own = record.session == facts.session
        if own:
            trials, spent = trials + 1, max(spent, record.spent)
        task = known.get(record.workload)
        if task is None or record.key != (task.workload, facts.device, facts.threads):
            continue
        if record.rule == task.rule and from_plain(record.decisions, task.space) is not None:
            if own:
                task.take(record)
            else:
                task.before.add(key(record.decisions))
    return trials, spent


@dataclass(eq=False)
class Tuner:
    """One session of tuning.

    Attributes:
        tasks: what to tune; they hold what earlier sessions recorded.
        numbers: of each task, where `workers` knows its kernel.
        workers: who measures.
        log: where records go.
        facts: of the session.
        budget: of the session.
        listener: who is told.
        trials: so far in this session.
        spent: seconds so far in this session.
        searching: seconds of these that nobody measured or built anything.
        past: what other kernels and devices teach.
        start: seconds of one run of the network with default schedules, 0 where that was not measured.
    """

    tasks: Sequence[Task]
    numbers: dict[Task, int]
    workers: Measures
    log: Keeps
    facts: Facts
    budget: Budget
    listener: Listener
    trials: int = 0
    spent: float = 0.0
    searching: float = 0.0
    seed: int = 0
    past: Past = field(default_factory=Past)
    start: float = 0.0
    _proposers: dict[str, Proposer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began = time.monotonic() - self.spent
        self._by_number = {number: task for task, number in self.numbers.items()}
        self._generator = np.random.default_rng([self.seed, self.trials])

    def run(self) -> None:
        """Tune until the end. What was recorded before an exception is safe."""
        self.listener.started(self)
        self.listener.phase("defaults")
        self._measure([(task, task.plain_default) for task in self.tasks if task.first is None])
        if self.past.hints:
            self.listener.phase("known")
            self._hints()
        self.listener.phase("search")
        self._search()
        self.listener.phase("leaders")
        self._leaders()

    @property
    def network(self) -> float:
        """Seconds that all tasks take in one run of the network, as far as known."""
        return sum(task.total for task in self.tasks if task.best is not None)

    @property
    def estimate(self) -> tuple[float, float]:
        """Seconds of one run of the network with default schedules, and estimated with the best so far.

        Of its tuned kernels alone where the run was not measured; 0 before anything was.
        """
        known = [task for task in self.tasks if task.first is not None]
        first, best = (sum(task.untuned for task in known), sum(task.total for task in known))
        return (self.start, self.start - first + best) if self.start else (first, best)

    @property
    def rest(self) -> float | None:
        """Seconds of one run beyond those of tuned kernels; None if that is not known.

        Less than 0 where these are faster in the network, which finds their inputs in a cache.
        """
        if not self.start or any(task.first is None for task in self.tasks):
            return None
        return self.start - sum(task.untuned for task in self.tasks)

    def elapsed(self) -> float:
        """Return the seconds of this session so far."""
        return time.monotonic() - self._began

    def _hints(self) -> None:
        """Measure what was best before or elsewhere, the longest kernels first, as far as the budget goes."""
        for task in sorted(self.tasks, key=lambda each: -each.total):
            if self.budget.is_spent(self.trials, self.elapsed()):
                return
            tried = {key(record.decisions) for record in task.records.values()}
            hints = {key(plain): plain for plain in self.past.hints.get(task.workload, ())}
            fresh = [plain for text, plain in hints.items() if text not in tried]
            self._measure([(task, plain) for plain in fresh[: self.budget.trials_left(self.trials)]])

    def _search(self) -> None:
        gains = Gains(self.tasks)
        while not self.budget.is_spent(self.trials, self.elapsed()):
            begin = time.monotonic()
            task = gains.next()
            if task is None or gains.left(_BATCH) < _NEGLIGIBLE * self.network:
                break
            left = self.budget.trials_left(self.trials)
            count = _BATCH if left is None else min(_BATCH, left)
            plain = self._proposer(task).propose(task, count, self._generator)
            self.searching += time.monotonic() - begin
            before = task.total
            self._measure([(task, each) for each in plain])
            gains.saw(task, before, len(plain))

    def _proposer(self, task: Task) -> Proposer:
        """Return who proposes for the tasks of one rule."""
        if task.rule not in self._proposers:
            same = [each for each in self.tasks if each.rule == task.rule]
            self._proposers[task.rule] = (
                Evolved()
                if isinstance(task.space, TraceSpace)
                else Ranked(same, self.past.lessons.get(task.rule, ()))
            )
        return self._proposers[task.rule]

    def _leaders(self) -> None:
        """Measure the best few of each task once more, and the default among them, in turns."""
        for task in self.tasks:
            fastest = sorted(task.records.values(), key=lambda each: each.time)[:_LEADERS]
            leaders = [each for each in fastest if each.seconds]
            # Where an earlier session's best has lost, it has to be said once more that the default won.
            if not leaders or (task.best is task.first and task.workload not in self.past.hints):
                continue
            if task.first is not None and task.first not in leaders:
                leaders.append(task.first)
            again: dict[str, list[Record]] = {each.trial: [] for each in leaders}
            for _, record in self._outcomes([(task, each.decisions) for each in leaders] * _TURNS):
                again[record.trial].append(record)
            for records in again.values():
                if all(record.seconds for record in records):
                    middle = sorted(records, key=lambda each: each.time)[len(records) // 2]
                    self._keep(task, replace(middle, note=AGAIN, spent=round(self.spent, 3)))

    def _measure(self, wanted: Sequence[tuple[Task, Any]]) -> None:
        for task, record in self._outcomes(wanted):
            self._keep(task, record)

    def _keep(self, task: Task, record: Record) -> None:
        self.log.append(record)
        task.take(record)
        self.listener.saw(task, record)

    def _outcomes(self, wanted: Sequence[tuple[Task, Any]]) -> Iterator[tuple[Task, Record]]:
        """Yield what comes of tasks with plain decisions."""
        trials = [Trial(self.numbers[task], task.rule, plain) for task, plain in wanted]
        for place, outcome in self.workers.measure(trials, lambda number: self._by_number[number].time):
            self.trials += 1
            self.spent = self.elapsed()
            task, plain = wanted[place]
            yield task, self._record(task, plain, outcome)

    def _record(self, task: Task, plain: Any, outcome: Outcome) -> Record:
        return self.facts.record(
            workload=task.workload,
            rule=task.rule,
            decisions=plain,
            status=outcome.status,
            seconds=outcome.seconds,
            noise=outcome.noise,
            calls=task.calls,
            flops=task.flops or 0.0,
            default=plain == task.plain_default,
            at=now(),
            note=outcome.note,
            spent=round(self.spent, 3),
        )
