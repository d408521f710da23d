"""What goes between who searches and who measures: kernels, trials and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compiler.schedule.records import Status
from compiler.target import Target


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel to be tuned, as it goes to another process.

    Attributes:
        name: in the network.
        function: the PrimFunc before it is scheduled, as TVM's JSON.
        cold: for each parameter, how many copies of it take turns: as many as it takes for a call to find
            it as far away as in the network, where other kernels' weights were read since.
        tolerance: how far from the default's results others may be, relative to the greatest of these.
    """

    name: str
    function: str
    cold: tuple[int, ...]
    tolerance: float


@dataclass(frozen=True)
class Trial:
    """Decisions of a rule, plain, to be measured on the kernel `kernel` (its number)."""

    kernel: int
    rule: str
    decisions: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Outcome:
    """What came of a trial; see `compiler.schedule.records.Record`."""

    status: Status
    seconds: tuple[float, ...] = ()
    noise: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Patience:
    """How long things may take.

    Attributes:
        build: seconds for the code of what is built at once.
        run: seconds for all calls of one trial.
        sample: seconds of one measurement, of which there are `repeats`; the calls in it are averaged.
        hopeless: a trial that takes so many times as long as the best so far is not measured again.
        memory: bytes of address space that a worker may use, 0 for any.
        together: how many trials are built at once.
    """

    build: float = 30.0
    run: float = 10.0
    sample: float = 0.002
    repeats: int = 5
    hopeless: float = 1.3
    memory: int = 0
    together: int = 4


@dataclass(frozen=True)
class Tools:
    """What a worker is given of later stages: functions of modules, so that another process finds them.

    Attributes:
        build: makes code of each of some scheduled kernels.
        use_threads: sets how many threads kernels run on.
    """

    build: Callable[[Sequence[Any], Target], Sequence[Callable[..., Any]]]
    use_threads: Callable[[int], None]
