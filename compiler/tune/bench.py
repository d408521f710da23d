"""Builds trials and measures them, in this process: what crashes or hangs here takes the process with it."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm

from compiler.schedule.apply import schedule_kernel
from compiler.schedule.space import Space, from_plain
from compiler.schedule.vector_math import register
from compiler.support.dtypes import numpy_dtype
from compiler.target import Target
from compiler.tune.trial import Kernel, Outcome, Patience, Tools, Trial

_MOST_CALLS = 200
"""The most calls that one measurement averages."""

NOISY = 0.1
"""A spread above which somebody else seems to use the machine: the measurement is repeated."""

_ROUNDS = 3
"""How often at most. The quietest counts."""

FINEST = 1e-9
"""Seconds that a call takes at least: a board's clock may be coarse."""

_SLOW = 1.08
"""How much longer than ever before a fixed piece of work takes when the clock is said to be low."""

SEED = 20


class NotBuiltError(Exception):
    """There is no code for a trial, and why."""


@dataclass(eq=False)
class _Bench:
    """A kernel at work: its arguments, as often as they take turns, and what it has to compute."""

    function: Any
    kernel: Kernel
    arguments: list[list[Any]] = field(default_factory=list)
    expected: np.ndarray | None = None
    garbage: Any = None


class Bench:
    """Builds and measures trials of kernels on `threads` threads.

    What is built waits in memory, linked, until it is run.
    """

    def __init__(self, target: Target, tools: Tools, threads: int, patience: Patience) -> None:
        register()
        tools.use_threads(threads)
        self._clock = Clock()
        self._target, self._tools, self._patience = target, tools, patience
        self._kernels: dict[int, _Bench] = {}
        self._built: dict[int, tuple[_Bench, Callable[..., Any]]] = {}

    def add(self, number: int, kernel: Kernel) -> None:
        """Take in a kernel."""
        self._kernels[number] = _Bench(tvm.ir.load_json(kernel.function), kernel)

    def build(self, numbers: Sequence[int], trials: Sequence[Trial]) -> list[Outcome | None]:
        """Build trials, to be run as `numbers`; return why each failed, None if it did not."""
        failed: dict[int, Outcome] = {}
        ready: dict[int, tuple[_Bench, Any]] = {}
        for number, trial in zip(numbers, trials, strict=True):
            bench = self._kernels[trial.kernel]
            try:
                ready[number] = bench, scheduled_as(bench.function, trial, self._target)
            except Exception as error:  # TVM refuses a schedule by many kinds of errors
                failed[number] = not_built(error)
        if not self._made(ready):
            for number, each in ready.items():
                try:
                    self._make({number: each})
                except Exception as error:
                    failed[number] = not_built(error)
        return [failed.get(number) for number in numbers]

    def _made(self, ready: dict[int, tuple[_Bench, Any]]) -> bool:
        """Make code of all together, and tell whether it went well: if not, one of them spoils it."""
        try:
            self._make(ready)
        except Exception:
            return False
        return True

    def _make(self, ready: dict[int, tuple[_Bench, Any]]) -> None:
        codes = self._tools.build([scheduled for _, scheduled in ready.values()], self._target)
        for (number, (bench, _)), code in zip(ready.items(), codes, strict=True):
            self._built[number] = bench, code

    def run(self, number: int, best: float, last: bool) -> Outcome:
        """Run what was built as `number`: compare what it computes, then measure it.

        `best` is the time in seconds of the fastest so far: what is hopeless is not measured for long. After
        the `last` time what was built is given up.
        """
        bench, code = self._built.pop(number) if last else self._built[number]
        if not bench.arguments:
            for other in self._kernels.values():
                other.arguments.clear()  # a network's weights, for each of its kernels, would fill the memory
            self._prepare(bench)
        first = bench.arguments[0]
        # What the last trial wrote must not pass for what this one leaves out.
        first[-1].copyfrom(bench.garbage)
        try:
            code(*first)
        except Exception as error:
            return Outcome("wrong", note=last_line(error))
        got = first[-1].numpy()
        assert bench.expected is not None
        off = difference(got, bench.expected)
        if not off <= bench.kernel.tolerance:
            return Outcome("wrong", note=f"off by {off:.2g} of the greatest value")
        seconds = measured(code, bench.arguments, best, self._patience)
        noise = spread(seconds)
        notes = [self._clock.note()] if noise <= NOISY else ["the machine was busy", self._clock.note()]
        return Outcome("ok", seconds, noise, "; ".join(note for note in notes if note))

    def _prepare(self, bench: _Bench) -> None:
        """Make the arguments of a kernel, and what the default schedule computes of them."""
        parameters = bench.function.params
        generator = np.random.default_rng(SEED)
        arrays = [random_array(parameter.ty, generator) for parameter in parameters]
        for turn in range(max(bench.kernel.cold)):
            bench.arguments.append(
                [
                    tvm.runtime.tensor(array) if turn < copies else bench.arguments[turn % copies][place]
                    for place, (array, copies) in enumerate(zip(arrays, bench.kernel.cold, strict=True))
                ]
            )
        bench.garbage = arrays[-1]
        if bench.expected is not None:
            return
        scheduled, _ = schedule_kernel(bench.function, self._target)
        (code,) = self._tools.build([scheduled], self._target)
        code(*bench.arguments[0])
        bench.expected = bench.arguments[0][-1].numpy().copy()


def scheduled_as(function: Any, trial: Trial, target: Target) -> Any:
    """Return a kernel, a PrimFunc, scheduled with the decisions of a trial.

    Raises:
        NotBuiltError: they are not for this kernel.
    """

    def decide(rule: str, space: Space[Any]) -> Any:
        if rule != trial.rule:
            raise NotBuiltError(f"the rule '{rule}' took the kernel, not '{trial.rule}'")
        decisions = from_plain(trial.decisions, space)
        if decisions is None:
            raise NotBuiltError("these decisions are not legal")
        return decisions

    scheduled, _ = schedule_kernel(function, target, decide)
    return scheduled


def not_built(error: Exception) -> Outcome:
    """Return what came of a trial that there is no code for: TVM's passes refuse by many kinds of errors."""
    if isinstance(error, MemoryError):
        return Outcome("not built", note="out of memory")
    return Outcome("not built", note=str(error) if isinstance(error, NotBuiltError) else last_line(error))


def measured(
    code: Callable[..., Any], arguments: Sequence[Sequence[Any]], best: float, patience: Patience
) -> tuple[float, ...]:
    """Return the seconds of a call, measured several times; `arguments` take turns."""
    turn = 0

    def sample(calls: int, repeats: int) -> tuple[float, ...]:
        nonlocal turn
        found = []
        for _ in range(repeats):
            begin = time.perf_counter()
            for _ in range(calls):
                code(*arguments[turn % len(arguments)])
                turn += 1
            found.append((time.perf_counter() - begin) / calls)
        return tuple(found)

    return settled(sample, best, patience)


def settled(
    sample: Callable[[int, int], tuple[float, ...]], best: float, patience: Patience
) -> tuple[float, ...]:
    """Return the seconds of a call, measured several times: anew while they are noisy.

    ``sample(calls, repeats)`` gives `repeats` averages of so many calls. What takes much longer than `best`,
    the fastest so far, is not measured again.
    """
    once = max(FINEST, min(sample(1, 2)))
    if once > patience.hopeless * best:
        return (once,)
    calls = min(_MOST_CALLS, max(1, round(patience.sample / once)))
    quietest: tuple[float, ...] = ()
    for _ in range(_ROUNDS):
        found = sample(calls, patience.repeats)
        if not quietest or spread(found) < spread(quietest):
            quietest = found
        if spread(quietest) <= NOISY:
            break
    return quietest


class Clock:
    """Tells whether the processor runs as fast as it did: a piece of work takes as many cycles each time."""

    def __init__(self) -> None:
        self._work = bytes(1 << 18)
        self._fastest = float("inf")

    def note(self) -> str:
        """Return ``""``, or how fast the clock is, as a part of the fastest seen."""
        now = min(self._time() for _ in range(3))
        self._fastest = min(self._fastest, now)
        return "" if now <= _SLOW * self._fastest else f"the clock was at {self._fastest / now:.0%}"

    def _time(self) -> float:
        begin = time.perf_counter()
        hashlib.sha256(self._work)
        return time.perf_counter() - begin


def spread(seconds: Sequence[float]) -> float:
    """Return how far the middle half of `seconds` lies apart, relative to their median."""
    if len(seconds) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(seconds, n=4)
    return (high - low) / middle


def difference(got: np.ndarray, expected: np.ndarray) -> float:
    """Return the greatest difference relative to the greatest value; infinite for what is not a number."""
    if got.dtype == np.uint16:  # the bits of bfloat16
        got, expected = ((each.astype(np.uint32) << 16).view(np.float32) for each in (got, expected))
    wide, exact = got.astype(np.float64), expected.astype(np.float64)
    if not np.isfinite(wide).all():
        return float("inf")
    return float(abs(wide - exact).max(initial=0) / (abs(exact).max(initial=0) or 1))


def random_array(buffer: Any, generator: np.random.Generator) -> np.ndarray:
    """Return numbers for a parameter: bytes over all of their range, indices 0, floats around 0."""
    shape = [int(extent) for extent in buffer.shape]
    dtype = numpy_dtype(str(buffer.dtype))
    if dtype.kind in "iu" and dtype.itemsize == 1:
        limits = np.iinfo(dtype)
        return generator.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    if dtype.kind == "u":
        return (generator.standard_normal(shape, np.float32).view(np.uint32) >> 16).astype(dtype)
    if dtype.kind in "ib":
        return np.zeros(shape, dtype)
    return generator.standard_normal(shape, np.float32).astype(dtype)


def last_line(error: Exception) -> str:
    """Return the last line of an error's text: TVM writes the reason there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
