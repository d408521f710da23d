"""Builds trials as libraries, apart from where they run: in processes of this machine, or on a cluster.

Whoever builds sits behind `concurrent.futures.Executor`. A *place* builds one trial at a time, so that it is
known who is to blame when a process dies or does not end.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

from compiler.support.errors import InternalError, UsageError
from compiler.support.progress import note
from compiler.target import Target
from compiler.tune import worker
from compiler.tune.process import Process
from compiler.tune.trial import Outcome, Patience, Trial

Link = Callable[[Any, Target], bytes]
"""Makes a library of a scheduled kernel: a function of a module, so that another process finds it."""

_FIRST = 300.0
"""Seconds for the first trial of a place: it loads TVM, and the linker may build a C library once."""

_CONNECT = 10
"""Seconds in which a scheduler has to answer."""

_GREETING = 120.0
"""Seconds in which the workers of a cluster have to say what they are: they load Kiln."""

_LOST = 15.0
"""Seconds without its scheduler after which a cluster is given up."""


def build_library(kernel: str, trial: Trial | None, target: Target, link: Link) -> bytes | Outcome:
    """Return the library of a trial, or why there is none.

    Args:
        kernel: the PrimFunc before it is scheduled, as TVM's JSON.
        trial: what to decide; None for the default.
        target: what to build for.
        link: makes the library.
    """
    import tvm

    from compiler.schedule.apply import schedule_kernel
    from compiler.schedule.vector_math import register
    from compiler.tune.bench import not_built, scheduled_as

    register()
    try:
        function = tvm.ir.load_json(kernel)
        scheduled = (
            schedule_kernel(function, target)[0] if trial is None else scheduled_as(function, trial, target)
        )
        return link(scheduled, target)
    except Exception as error:
        return not_built(error)


class Place(Protocol):
    """Where one trial at a time is built."""

    def submit(self, question: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Ask something."""

    def end(self) -> None:
        """End what still runs there, as far as that is possible."""


class _Local(Process):
    """A process of this machine."""

    def __init__(self) -> None:
        super().__init__(worker.obey)


@dataclass(frozen=True)
class _Distant:
    """A thread of some process of a cluster."""

    executor: Executor

    def submit(self, question: Callable[..., Any], *arguments: Any) -> Future[Any]:
        return self.executor.submit(question, *arguments)

    def end(self) -> None:
        """Leave it alone: a cluster looks after its own processes."""


class Cluster:
    """Dask's scheduler at an address, as places."""

    def __init__(self, where: str) -> None:
        """Connect to `where`, such as ``dask://HOST:PORT``.

        Raises:
            UsageError: Dask is not installed, no scheduler answers, or its workers cannot build.
        """
        scheme, _, address = where.partition("://")
        if scheme != "dask" or not address:
            raise UsageError(f"expected --workers dask://HOST:PORT, got '{where}'")
        try:
            from distributed import Client
        except ImportError as error:
            raise UsageError("--workers dask:// needs Dask: pip install 'kiln-compiler[dask]'") from error
        try:
            self._client = Client(f"tcp://{address}", timeout=_CONNECT, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(
                f"no Dask scheduler answers at {address}: start one with `dask scheduler`"
            ) from error
        try:
            self._greet(address)
        except BaseException:
            self.close()
            raise
        self._executor = self._client.get_executor(pure=False)
        self._answered = time.monotonic()

    def places(self) -> list[Place]:
        """Return as many places as the cluster's workers have threads."""
        return [_Distant(self._executor) for _ in range(sum(self._client.nthreads().values()))]

    def is_connected(self) -> bool:
        """Tell whether the scheduler is there."""
        return bool(self._client.status == "running")

    def is_lost(self) -> bool:
        """Tell whether the scheduler has been gone for a while. Dask itself waits for it for ever."""
        if self.is_connected():
            self._answered = time.monotonic()
        return time.monotonic() - self._answered > _LOST

    def close(self) -> None:
        """Disconnect."""
        self._client.close(timeout=5)

    def _greet(self, address: str) -> None:
        """Find out whether the workers can build, and with the same versions."""
        workers = list(self._client.nthreads())
        if not workers:
            raise UsageError(
                f"the Dask scheduler at {address} has no workers: start some with `dask worker {address}`"
            )
        try:
            asked = [self._client.submit(versions, workers=[each], pure=False) for each in workers]
            answers = [each.result(timeout=_GREETING) for each in asked]
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise UsageError(
                f"the workers of the Dask scheduler at {address} cannot build: {reason}; "
                "install kiln-compiler on each"
            ) from error
        ours = versions()
        for place, theirs in zip(workers, answers, strict=True):
            if theirs != ours:
                raise UsageError(
                    f"expected Kiln {ours[0]} and TVM {ours[1]} on the Dask worker {place}, "
                    f"got {theirs[0]} and {theirs[1]}"
                )


def versions() -> tuple[str, str]:
    """Return the versions of Kiln and TVM that build here."""
    return version("kiln-compiler"), version("apache-tvm")


@dataclass(eq=False)
class _Job:
    tag: Hashable
    kernel: str
    trial: Trial | None
    place: Place
    deadline: float


class Builders:
    """Builds trials at all places at once; a context manager that leaves no process behind.

    When the cluster goes away, building goes on in processes of this machine.
    """

    def __init__(
        self, target: Target, link: Link, patience: Patience, count: int, cluster: Cluster | None = None
    ) -> None:
        """Build in `count` processes, or in as many places as `cluster` has."""
        self._target, self._link, self._patience, self._count = target, link, patience, count
        self._cluster = cluster
        self._idle: deque[Place] = deque(cluster.places() if cluster else self._local())
        self._warm: set[Place] = set()
        self._waiting: deque[tuple[Hashable, str, Trial | None]] = deque()
        self._jobs: dict[Future[Any], _Job] = {}

    def has_room(self) -> bool:
        """Tell whether another trial can be begun at once."""
        return len(self._idle) > len(self._waiting)

    def begin(self, tag: Hashable, kernel: str, trial: Trial | None) -> None:
        """Begin to build a trial (None: the default) of `kernel`; what comes of it has the same `tag`."""
        self._waiting.append((tag, kernel, trial))
        self._feed()

    def futures(self) -> set[Future[Any]]:
        """Return what is being built, to be waited for."""
        return set(self._jobs)

    def finished(self) -> Iterator[tuple[Any, bytes | Outcome]]:
        """Yield what was built since it was last asked, or why it was not.

        Raises:
            InternalError: no process can be asked to build.
        """
        if self._cluster is not None and self._cluster.is_lost():
            self._leave_cluster("its scheduler does not answer")
        for future, job in list(self._jobs.items()):
            if future not in self._jobs:  # it was asked again elsewhere
                continue
            if future.done():
                del self._jobs[future]
                result = self._result(future, job)
            elif time.monotonic() > job.deadline and self._answers():
                del self._jobs[future]
                result = Outcome("not built", note=f"no code in {self._patience.build:g} s")
                self._replace(job.place)
            else:
                continue
            if result is not None:
                yield job.tag, result
        self._feed()

    def close(self) -> None:
        """End all processes."""
        for place in [*self._idle, *(job.place for job in self._jobs.values())]:
            place.end()
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None
        self._idle.clear()
        self._jobs.clear()

    def __enter__(self) -> Builders:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def _answers(self) -> bool:
        """Tell whether a trial that is late is to blame, not a cluster that does not answer just now."""
        return self._cluster is None or self._cluster.is_connected()

    def _local(self) -> list[Place]:
        return [_Local() for _ in range(self._count)]

    def _feed(self) -> None:
        while self._idle and self._waiting:
            place, (tag, kernel, trial) = self._idle.popleft(), self._waiting.popleft()
            seconds = self._patience.build if place in self._warm else max(_FIRST, self._patience.build)
            self._warm.add(place)
            future = place.submit(build_library, kernel, trial, self._target, self._link)
            self._jobs[future] = _Job(tag, kernel, trial, place, time.monotonic() + seconds)

    def _result(self, future: Future[Any], job: _Job) -> bytes | Outcome | None:
        """Return what a place answered; None if the question has to be asked again."""
        error = CancelledError() if future.cancelled() else future.exception()
        if error is None:
            self._idle.append(job.place)
            answer: bytes | Outcome = future.result()
            return answer
        if isinstance(error, BrokenProcessPool):
            self._replace(job.place)
            return Outcome("not built", note="the process that built it died; out of memory?")
        if type(error).__name__ == "KilledWorker":  # Dask's, which need not be installed
            self._idle.append(job.place)
            self._warm.discard(job.place)  # who comes after it loads TVM
            return Outcome("not built", note="the workers that built it died; out of memory?")
        if self._cluster is None:
            raise InternalError(f"a process could not be asked to build: {error}") from error
        self._waiting.append((job.tag, job.kernel, job.trial))
        self._leave_cluster(f"{type(error).__name__} {error}".strip())
        return None

    def _replace(self, place: Place) -> None:
        """Take another place for one that hangs or is dead. A cluster's that hangs is lost."""
        place.end()
        if isinstance(place, _Local):
            self._idle.append(_Local())
        elif not self._idle and not self._jobs:
            self._leave_cluster("all its workers hang")

    def _leave_cluster(self, why: str) -> None:
        """Build here from now on, also what is being built there."""
        assert self._cluster is not None
        note(f"warning: lost the cluster that builds ({why}): building goes on here")
        self._cluster.close()
        self._cluster = None
        self._waiting.extend((job.tag, job.kernel, job.trial) for job in self._jobs.values())
        self._jobs.clear()
        self._idle = deque(self._local())
