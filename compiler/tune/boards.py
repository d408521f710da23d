"""Measures trials on boards, as many at once as a tracker has of a kind, or on this machine from libraries.

What ends a session with a board may be the trial or the board: the trial is tried once more, and what ends
two sessions has crashed. A board that goes away is waited for.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import tvm

from compiler.support.errors import InternalError, UsageError
from compiler.support.progress import note
from compiler.target import Target
from compiler.tune import runner
from compiler.tune.builder import Builders
from compiler.tune.kernel import bytes_of_buffer
from compiler.tune.process import START, Process
from compiler.tune.runner import Job, Where
from compiler.tune.tracker import count
from compiler.tune.trial import Kernel, Outcome, Patience, Trial

_MOST = 64
"""Boards that measure at once."""

_LOOK = 2.0
"""Seconds between two looks at the tracker while something waits for a board."""

_GONE = 900.0
"""Seconds without any board after which nobody waits any longer."""

_SAY = 20.0
"""Seconds without one after which it is said."""

_REST = 1.0
"""Seconds between two attempts to open a session."""

_NETWORK = 1e6
"""Bytes a second that even a slow network carries."""

_MARGIN = 5.0
"""Seconds of a session for opening it and for what else takes time."""


@dataclass(eq=False)
class _Ready:
    """A library that waits to be run, of a trial of a batch."""

    batch: _Batch
    place: int
    kernel: int
    library: bytes


@dataclass(eq=False)
class _Runner:
    """A process that runs libraries, and what it does.

    Attributes:
        process: the process.
        kernels: that it knows.
        session: when its session with a board began; None while it has none.
        asked: the answer that it owes: of a session if `job` is None, else of a job.
        job: what it runs.
        deadline: until when.
        rests: until when it does not try to open a session.
    """

    process: Process
    kernels: set[int] = field(default_factory=set)
    session: float | None = None
    asked: Future[Any] | None = None
    job: _Ready | None = None
    deadline: float = float("inf")
    rests: float = 0.0


class BoardWorkers:
    """Measures trials: see `compiler.tune.tuner.Measures`.

    A context manager that leaves no process behind.
    """

    def __init__(
        self,
        builders: Builders,
        where: Where,
        target: Target,
        threads: int,
        patience: Patience | None = None,
        gone: float = _GONE,
    ) -> None:
        """Build with `builders`, run on `threads` threads at `where`; wait `gone` seconds for a board."""
        self._patience = patience or Patience()
        self._builders, self._where = builders, where
        self._new_process = partial(Process, runner.start, where, target, threads, self._patience)
        self._kernels: list[Kernel] = []
        self._defaults: dict[int, bytes | Outcome | None] = {}
        self._transfer = 0.0
        self._boards = _Boards(where, gone)
        self._runners = [_Runner(self._new_process())]

    def add(self, kernel: Kernel) -> int:
        """Take in a kernel; return its number in trials."""
        self._kernels.append(kernel)
        self._transfer = max(self._transfer, _bytes(kernel) / _NETWORK)
        return len(self._kernels) - 1

    def measure(self, trials: Sequence[Trial], best: Callable[[int], float]) -> Iterator[tuple[int, Outcome]]:
        """Yield what comes of each of `trials`, with its place among them, in any order.

        `best` gives the fastest time in seconds so far of a kernel.

        Raises:
            UsageError: no board has been there for long.
            InternalError: no process can be started.
        """
        batch = _Batch(trials, best)
        while batch.left:
            self._build(batch)
            self._run(batch)
            futures = self._builders.futures() | {each.asked for each in self._runners if each.asked}
            if futures:
                wait(futures, self._pause(), FIRST_COMPLETED)
            else:
                time.sleep(self._pause())
            yield from batch.end(self._built(batch))
            yield from batch.end(self._answers(batch))

    def close(self) -> None:
        """End all processes."""
        for each in self._runners:
            each.process.end()
        self._runners = []
        self._builders.close()

    def __enter__(self) -> BoardWorkers:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    @property
    def _life(self) -> float:
        """Seconds after which a session is not used for another trial: that might be cut off."""
        return self._patience.run + self._transfer + _MARGIN

    @property
    def _session_seconds(self) -> float:
        """Seconds after which a board ends a session by itself: so long a trial that hangs takes it up."""
        return self._life + self._run_seconds

    @property
    def _run_seconds(self) -> float:
        return self._patience.run + self._transfer

    def _pause(self) -> float:
        """Return for how long there is nothing to do but to wait."""
        soonest = min(each.deadline for each in self._runners)
        return min(_LOOK / 4, max(0.0, soonest - time.monotonic()))

    def _build(self, batch: _Batch) -> None:
        """Begin to build what there is room for, the default of each kernel first."""
        while batch.to_build and self._builders.has_room():
            kernel = batch.trials[batch.to_build[0]].kernel
            if kernel not in self._defaults:
                self._defaults[kernel] = None
                self._builders.begin(("default", kernel), self._kernels[kernel].function, None)
                continue
            place = batch.to_build.popleft()
            trial = batch.trials[place]
            self._builders.begin((batch, place), self._kernels[trial.kernel].function, trial)

    def _built(self, batch: _Batch) -> Iterator[tuple[int, Outcome]]:
        """Take what was built; yield what cannot be."""
        for tag, result in self._builders.finished():
            whose, number = tag
            if whose == "default":
                self._defaults[number] = result
            elif whose is not batch:  # of a batch that was given up
                continue
            elif isinstance(result, Outcome):
                yield number, result
            else:
                batch.ready.append(_Ready(batch, number, batch.trials[number].kernel, result))
        for each in list(batch.ready):
            default = self._defaults[each.kernel]
            if isinstance(default, Outcome):
                batch.ready.remove(each)
                yield each.place, Outcome("not built", note=f"the default schedule: {default.note}")

    def _run(self, batch: _Batch) -> None:
        """Give libraries to who has a session, and open sessions for the others."""
        runnable = [each for each in batch.ready if isinstance(self._defaults[each.kernel], bytes)]
        boards = self._boards.number() if runnable else 0
        while len(self._runners) < min(boards, _MOST, len(runnable)):
            self._runners.append(_Runner(self._new_process()))
        for each in self._runners:
            if each.asked is None and each.session is not None and self._is_fresh(each) and runnable:
                self._give(each, runnable.pop(0), batch)
        busy = any(each.job for each in self._runners)
        self._boards.wait(hungry=bool(runnable) and not busy)
        room = min(boards - sum(1 for each in self._runners if each.asked is not None), len(runnable))
        resting = [each for each in self._runners if each.asked is None and each.rests < time.monotonic()]
        for each in resting[: max(0, room)]:
            self._acquire(each)

    def _is_fresh(self, each: _Runner) -> bool:
        if self._where.tracker is None:
            return True
        return each.session is not None and time.monotonic() - each.session < self._life

    def _acquire(self, each: _Runner) -> None:
        each.session = None
        if self._where.tracker is None:
            each.asked = each.process.ready  # there is nothing to wait for but the process
            each.deadline = time.monotonic() + START
        else:
            each.asked = each.process.submit(runner.acquire, self._session_seconds)
            each.deadline = float("inf")

    def _give(self, each: _Runner, ready: _Ready, batch: _Batch) -> None:
        batch.ready.remove(ready)
        if ready.kernel not in each.kernels:
            each.kernels.add(ready.kernel)
            each.process.submit(runner.add, ready.kernel, self._kernels[ready.kernel])
        default = self._defaults[ready.kernel]
        assert isinstance(default, bytes)
        job = Job(ready.kernel, default, ready.library, batch.best(ready.kernel))
        each.job, each.asked = ready, each.process.submit(runner.run, job)
        each.deadline = time.monotonic() + self._run_seconds

    def _answers(self, batch: _Batch) -> Iterator[tuple[int, Outcome]]:
        """Hear the runners that have answered or are late; yield outcomes of trials."""
        for each in self._runners:
            if each.asked is None:
                continue
            late = not each.asked.done()
            if late and time.monotonic() < each.deadline:
                continue
            error = TimeoutError() if late else each.asked.exception()
            asked, job = each.asked, each.job
            each.asked, each.job, each.deadline = None, None, float("inf")
            if job is None:
                self._opened(each, error)
                continue
            if error is not None:
                self._ended(each, error)
            if job.batch is not batch:  # it was given up
                continue
            if error is None:
                yield job.place, asked.result()
            else:
                yield from self._strike(batch, job, late)

    def _opened(self, each: _Runner, error: BaseException | None) -> None:
        """Hear that a runner has a session, or why not."""
        if error is None:
            each.session = time.monotonic()
            return
        born = each.process.ready
        if self._where.tracker is None or (born.done() and born.exception()):
            raise InternalError(f"a process that measures could not be started: {error}") from error
        self._ended(each, error)
        each.rests = time.monotonic() + _REST

    def _ended(self, each: _Runner, error: BaseException) -> None:
        """Give up a session, and the process that had it if that hangs or is dead."""
        each.session = None
        if isinstance(error, (TimeoutError, BrokenProcessPool)):
            each.process.end()
            each.process = self._new_process()
            each.kernels = set()

    def _strike(self, batch: _Batch, job: _Ready, late: bool) -> Iterator[tuple[int, Outcome]]:
        """Decide what becomes of a trial whose session ended while it ran, or did not end in time."""
        batch.strikes[job.place] += 1
        seconds = self._patience.run
        if self._where.tracker is None:
            note_ = f"no end in {seconds:g} s" if late else "the process that ran it died"
        elif batch.strikes[job.place] == 1:
            how = "does not answer" if late else "ended the session"
            note(f"a board '{self._where.key}' {how}: its trial is tried once more")
            batch.ready.append(job)
            return
        else:
            note_ = f"no end in {seconds:g} s, twice" if late else "two sessions with boards ended with it"
        yield job.place, Outcome("timed out" if late else "crashed", note=note_)


class _Boards:
    """How many boards the tracker has, asked now and then; on this machine always one."""

    def __init__(self, where: Where, gone: float) -> None:
        self._where, self._gone = where, gone
        self._number, self._asked, self._why = 1, float("-inf"), ""
        self._hungry: float | None = None
        self._said = False

    def number(self) -> int:
        """Return how many boards there are; 0 where nobody knows of any."""
        now = time.monotonic()
        if self._where.tracker is None or now - self._asked < _LOOK:
            return self._number
        self._asked = now
        try:
            self._number = count(self._where.tracker, self._where.key)
            self._why = "all are in use" if self._number else "it knows none"
        except OSError as error:
            self._number, self._why = 0, f"it does not answer: {error.strerror or error}"
        return self._number

    def wait(self, hungry: bool) -> None:
        """Hear whether there is something to run and nothing runs; say so after a while.

        Raises:
            UsageError: there has been no board for long.
        """
        what = f"a board '{self._where.key}' of the tracker {self._where.tracker}"
        if not hungry:
            if self._said:
                note(f"there is {what} again")
            self._hungry, self._said = None, False
            return
        now = time.monotonic()
        if self._hungry is None:
            self._hungry = now
        since = now - self._hungry
        if since > _SAY and not self._said and self._where.tracker is not None:
            self._said = True
            note(f"waiting for {what}: {self._why}")
        if since > self._gone and not self._number:
            raise UsageError(
                f"expected {what}, waited {since / 60:.0f} minutes: {self._why}; "
                "what was measured is safe, and the same command goes on"
            )


@dataclass(eq=False)
class _Batch:
    """Trials on their way: to be built, ready to be run, at a runner, or at their end."""

    trials: Sequence[Trial]
    best: Callable[[int], float]
    to_build: deque[int] = field(default_factory=deque)
    ready: list[_Ready] = field(default_factory=list)
    strikes: Counter[int] = field(default_factory=Counter)
    left: int = 0

    def __post_init__(self) -> None:
        self.to_build.extend(range(len(self.trials)))
        self.left = len(self.trials)

    def end(self, outcomes: Iterator[tuple[int, Outcome]]) -> Iterator[tuple[int, Outcome]]:
        """Yield outcomes, and count them."""
        for place, outcome in outcomes:
            self.left -= 1
            yield place, outcome


def _bytes(kernel: Kernel) -> int:
    """Return the bytes of all arguments of a kernel, once."""
    return sum(bytes_of_buffer(each.ty) for each in tvm.ir.load_json(kernel.function).params)
