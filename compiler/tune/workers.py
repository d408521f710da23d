"""A few processes that build trials side by side, then measure them one by one while the others rest.

What hangs is killed, and what dies is started again; either costs the trial at hand, and what its process had
built but not run is built once more.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, TimeoutError, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Any

from compiler.support.errors import InternalError
from compiler.target import Target
from compiler.tune import worker
from compiler.tune.process import START, Process
from compiler.tune.trial import Kernel, Outcome, Patience, Tools, Trial


class _Worker(Process):
    """A process, and the kernels that it has. What it was asked first it does first."""

    def __init__(self, target: Target, tools: Tools, threads: int, patience: Patience) -> None:
        super().__init__(worker.start, target, tools, threads, patience)
        self.kernels: set[int] = set()
        self.ended = False

    def wait_until_ready(self) -> None:
        """Wait for a new process.

        Raises:
            InternalError: it cannot be started.
        """
        try:
            self.ready.result(START)
        except (BrokenProcessPool, TimeoutError) as error:
            raise InternalError(f"a process that measures could not be started: {error}") from error

    def end(self) -> None:
        """Kill the process."""
        self.ended = True
        super().end()


@dataclass(eq=False)
class _Building:
    places: list[int]
    process: _Worker
    deadline: float


class Workers:
    """Measures trials; a context manager that leaves no process behind."""

    def __init__(
        self, count: int, target: Target, tools: Tools, threads: int, patience: Patience | None = None
    ) -> None:
        """Start `count` processes for building; what is measured runs on `threads` threads."""
        self._patience = patience or Patience()
        self._new = partial(_Worker, target, tools, threads, self._patience)
        self._kernels: list[Kernel] = []
        self._processes = [self._new() for _ in range(count)]

    def add(self, kernel: Kernel) -> int:
        """Take in a kernel; return its number in trials."""
        self._kernels.append(kernel)
        return len(self._kernels) - 1

    def measure(self, trials: Sequence[Trial], best: Callable[[int], float]) -> Iterator[tuple[int, Outcome]]:
        """Yield what comes of each of `trials`, with its place among them, in any order.

        `best` gives the fastest time in seconds so far of a kernel.

        Raises:
            InternalError: no process can be started.
        """
        places: dict[int, list[int]] = {}
        for place, trial in enumerate(trials):
            # What is measured several times is built once.
            places.setdefault(trials.index(trial), []).append(place)
        waiting = deque(places)
        while waiting:
            built: dict[int, _Worker] = {}
            for first, process, failed in self._build(trials, waiting):
                if failed is None:
                    built[first] = process
                else:
                    yield from ((place, failed) for place in places.pop(first))
            runs = sorted((place, first) for first in built for place in places[first])
            for place, first in runs:
                process = built[first]
                if not process.ended:  # after it had built this
                    places[first].remove(place)
                    yield place, self._run(process, first, best(trials[place].kernel), not places[first])
            waiting.extend(first for first in built if places[first])

    def close(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.end()
        self._processes = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def _build(
        self, trials: Sequence[Trial], waiting: deque[int]
    ) -> Iterator[tuple[int, _Worker, Outcome | None]]:
        """Build trials in all processes; yield each with its process, and why it failed if it did.

        Some are built together. Where that ends a process, or does not end, each is built once more alone.
        """
        for process in self._processes:
            process.wait_until_ready()
        busy: dict[Future[Any], _Building] = {}
        alone: set[int] = set()
        while waiting or busy:
            idle = [each for each in self._processes if each not in [b.process for b in busy.values()]]
            for process in idle[: len(waiting)]:
                places = self._together(waiting, alone)
                future = self._submit(process, places, trials)
                busy[future] = _Building(places, process, time.monotonic() + self._patience.build)
            soonest = min(each.deadline for each in busy.values()) - time.monotonic()
            done, _ = wait(busy, max(0.0, soonest), FIRST_COMPLETED)
            late = {future for future, each in busy.items() if each.deadline < time.monotonic()} - done
            for future in done | late:
                each = busy.pop(future)
                outcomes = self._built(each, future)
                if outcomes is None:
                    alone.update(each.places)
                    waiting.extend(each.places)
                else:
                    yield from ((p, each.process, o) for p, o in zip(each.places, outcomes, strict=True))

    def _together(self, waiting: deque[int], alone: set[int]) -> list[int]:
        """Take what one process is to build next: as much as the others get."""
        share = -(-len(waiting) // len(self._processes))
        places = [waiting.popleft()]
        while waiting and len(places) < min(share, self._patience.together):
            if {places[0], waiting[0]} & alone:
                break
            places.append(waiting.popleft())
        return places

    def _submit(self, process: _Worker, places: list[int], trials: Sequence[Trial]) -> Future[Any]:
        for kernel in {trials[place].kernel for place in places} - process.kernels:
            process.kernels.add(kernel)
            process.submit(worker.add, kernel, self._kernels[kernel])
        return process.submit(worker.build, places, [trials[place] for place in places])

    def _built(self, building: _Building, future: Future[Any]) -> list[Outcome | None] | None:
        """Return what came of building; None if nobody knows by which of the trials it failed."""
        late = Outcome("not built", note=f"no code in {self._patience.build:g} s")
        dead = Outcome("not built", note="the process that built it died; out of memory?")
        answer = self._answer(building.process, future, 0, late, dead)
        if isinstance(answer, Outcome):
            return [answer] if len(building.places) == 1 else None
        outcomes: list[Outcome | None] = answer
        return outcomes

    def _run(self, process: _Worker, place: int, best: float, last: bool) -> Outcome:
        """Run what `process` built as `place`, for the `last` time or not, while all others rest."""
        seconds = self._patience.run
        late = Outcome("timed out", note=f"no end in {seconds:g} s")
        dead = Outcome("crashed", note="the process that ran it died")
        future = process.submit(worker.run, place, best, last)
        outcome: Outcome = self._answer(process, future, seconds, late, dead)
        return outcome

    def _answer(
        self, process: _Worker, future: Future[Any], seconds: float, late: Outcome, dead: Outcome
    ) -> Any:
        """Return what `process` answers within `seconds`; one that is `late` or `dead` is replaced."""
        try:
            return future.result(seconds)
        except TimeoutError:
            answer = late
        except BrokenProcessPool:
            answer = dead
        process.end()
        self._processes[self._processes.index(process)] = self._new()
        return answer
