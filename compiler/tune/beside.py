"""What a page about a tuning tells beside the log: schedules as text, the machine's peak, a peer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from compiler.schedule.apply import schedule_kernel
from compiler.schedule.space import Space, from_plain
from compiler.target import Target
from compiler.tune.task import Task


@dataclass(frozen=True)
class PeerTime:
    """Another runtime's name, and seconds of one run of the network in it."""

    name: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.name} {self.seconds * 1e3:.3f} ms"


@dataclass(frozen=True)
class Peaks:
    """Operations a second that a machine reaches at most: of floats of 32 bits, and of bytes."""

    floats: float
    bytes: float


@dataclass(frozen=True)
class Beside:
    """What no log holds.

    Attributes:
        sources: by workload, its best schedule as TVMScript.
        calls: by workload, how often one run of the network calls it.
        peaks: by workload, the operations a second that the machine reaches at most in such a kernel.
        peer: what the network is compared with.
        rest: seconds of one run that are in no kernel that is tuned; None if nobody knows.
    """

    sources: Mapping[str, str] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)
    peaks: Mapping[str, float] = field(default_factory=dict)
    peer: PeerTime | None = None
    rest: float | None = None


def sources(tasks: Iterable[Task], target: Target) -> dict[str, str]:
    """Return by workload the best schedule of each task that has one, as TVMScript."""
    return {task.workload: _source(task, target) for task in tasks if task.best is not None}


def peaks(tasks: Iterable[Task], machine: Peaks) -> dict[str, float]:
    """Return by workload what `machine` reaches at most; kernels of short floats have no entry."""
    found = {}
    for task in tasks:
        kinds = {str(parameter.ty.dtype) for parameter in task.function.params[:-1]}
        given = {str(parameter.ty.dtype) for parameter in task.function.params[:2]}
        if given <= {"int8", "uint8"}:
            found[task.workload] = machine.bytes
        elif kinds == {"float32"}:
            found[task.workload] = machine.floats
    return found


def _source(task: Task, target: Target) -> str:
    def decide(rule: str, space: Space[Any]) -> Any:
        found = None
        if task.best is not None and rule == task.best.rule:
            found = from_plain(task.best.decisions, space)
        return space.default if found is None else found

    scheduled, _ = schedule_kernel(task.function, target, decide)
    return str(scheduled.script())
