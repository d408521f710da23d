"""The process that runs libraries of trials: on a board, through TVM's RPC, or on this machine.

It holds one session with a board. What hangs there hangs here, too: then this process is killed, and the
board's server ends the session when its time is over.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.target import Target
from compiler.tune import worker
from compiler.tune.tracker import Address, request
from compiler.tune.trial import Kernel, Outcome, Patience

TURNS = "turns"
"""The function of a library that calls its kernel many times; see `compiler.build.kernel_library`."""

_BIG_CORES = 1
"""TVM's mode of threads that pins each to a core, the fast ones first."""

_CONNECT = 30
"""Seconds for a board that is said to be free to answer."""


class BoardLostError(Exception):
    """The session with the board has ended: a crash, a reboot, a cut cable."""


@dataclass(frozen=True)
class Where:
    """Where libraries run.

    Attributes:
        tracker: that has the board, None for this machine.
        key: of the board.
        use_threads: sets how many threads this machine's kernels run on.
        reach: gives the address, as this machine reaches it, of one that the tracker named; a function of a
            module or None: they are the same.
    """

    tracker: Address | None = None
    key: str = ""
    use_threads: Callable[[int], None] | None = None
    reach: Callable[[Address], Address] | None = None


@dataclass(frozen=True)
class Job:
    """A library to be measured.

    Attributes:
        kernel: the number of what it computes.
        default: the library of the default schedule.
        library: of the trial.
        best: seconds of the fastest so far: what is hopeless is not measured for long.
    """

    kernel: int
    default: bytes
    library: bytes
    best: float


_runner: _Runner | None = None


def start(where: Where, target: Target, threads: int, patience: Patience) -> None:
    """Make the runner of this process."""
    global _runner
    worker.obey()
    _runner = _Runner(where, target, threads, patience)


def add(number: int, kernel: Kernel) -> None:
    """Take in a kernel."""
    assert _runner is not None
    _runner.kernels[number] = kernel


def acquire(seconds: float) -> None:
    """Wait for a board, and open a session of `seconds` with it; the one before is over.

    Raises:
        OSError: the tracker does not answer.
        Exception: the board does not.
    """
    assert _runner is not None
    _runner.acquire(seconds)


def run(job: Job) -> Outcome:
    """Compare what a library computes with the default's results, then measure it.

    Raises:
        BoardLostError: the session has ended.
    """
    assert _runner is not None
    return _runner.run(job)


@dataclass(eq=False)
class _Prepared:
    """A kernel's arguments on the board, as often as they take turns, and what it has to compute."""

    number: int
    arguments: list[list[Any]]
    garbage: Any
    expected: np.ndarray


class _Runner:
    def __init__(self, where: Where, target: Target, threads: int, patience: Patience) -> None:
        self._where, self._target, self._threads, self._patience = where, target, threads, patience
        self.kernels: dict[int, Kernel] = {}
        self._prepared: _Prepared | None = None
        self._session: Any = None
        self._loaded = 0
        if where.tracker is None:
            from tvm.rpc import LocalSession, server

            server.logger.setLevel("ERROR")
            self._session = LocalSession()
            if where.use_threads is not None:
                where.use_threads(threads)

    def acquire(self, seconds: float) -> None:
        self._prepared, self._session = None, None
        assert self._where.tracker is not None
        offer = request(self._where.tracker, self._where.key)
        # Who waits for a machine that has lost its power waits long: this ends the process.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_CONNECT)
        try:
            from tvm.rpc import connect

            there = self._where.reach(offer.address) if self._where.reach else offer.address
            limit = math.ceil(seconds)
            self._session = connect(there.host, there.port, offer.word, session_timeout=limit)
            self._session.get_function("runtime.config_threadpool")(_BIG_CORES, self._threads)
        finally:
            signal.alarm(0)

    def run(self, job: Job) -> Outcome:
        try:
            if self._prepared is None or self._prepared.number != job.kernel:
                self._prepared = None  # a network's weights, for each of its kernels, would fill the memory
                self._prepared = self._prepare(job)
            return self._measure(job, self._prepared)
        except Exception as error:
            if not self._is_alive():
                self._prepared, self._session = None, None
                raise BoardLostError(str(error)[-200:]) from None
            from compiler.tune.bench import last_line

            return Outcome("wrong", note=last_line(error))

    def _is_alive(self) -> bool:
        if self._session is None:
            return False
        try:
            self._session.get_function("runtime.NumThreads")()
        except Exception:
            return False
        return True

    def _load(self, library: bytes) -> Any:
        # A library of the same name would be the one that is loaded already.
        self._loaded += 1
        name = f"kernel{self._loaded}.so"
        self._session.upload(bytearray(library), name)
        module = self._session.load_module(name)
        self._session.remove(name)  # what is loaded needs no file
        return module

    def _prepare(self, job: Job) -> _Prepared:
        """Make the arguments of a kernel on the board, and what the default schedule computes there."""
        import tvm

        from compiler.tune.bench import SEED, random_array

        kernel = self.kernels[job.kernel]
        parameters = tvm.ir.load_json(kernel.function).params
        generator = np.random.default_rng(SEED)
        arrays = [random_array(parameter.ty, generator) for parameter in parameters]
        device = self._session.cpu(0)
        arguments: list[list[Any]] = [[tvm.runtime.tensor(array, device) for array in arrays]]
        for turn in range(1, max(kernel.cold)):
            arguments.append(
                [
                    _copy(arguments[0][place], device) if turn < copies else arguments[turn % copies][place]
                    for place, copies in enumerate(kernel.cold)
                ]
            )
        self._load(job.default)["main"](*arguments[0])
        return _Prepared(job.kernel, arguments, arrays[-1], arguments[0][-1].numpy().copy())

    def _measure(self, job: Job, prepared: _Prepared) -> Outcome:
        from compiler.tune.bench import NOISY, difference, spread

        kernel = self.kernels[job.kernel]
        code, first = self._load(job.library), prepared.arguments[0]
        # What the last trial wrote must not pass for what this one leaves out.
        first[-1].copyfrom(prepared.garbage)
        code["main"](*first)
        off = difference(first[-1].numpy(), prepared.expected)
        if not off <= kernel.tolerance:
            return Outcome("wrong", note=f"off by {off:.2g} of the greatest value")
        seconds = self._seconds(code, prepared.arguments, job.best)
        noise = spread(seconds)
        return Outcome("ok", seconds, noise, "" if noise <= NOISY else "the board was busy")

    def _seconds(self, code: Any, arguments: Sequence[Sequence[Any]], best: float) -> tuple[float, ...]:
        """Return the seconds of a call, measured several times by the board's own clock."""
        from compiler.tune.bench import settled

        flat = [each for turn in arguments for each in turn]
        device = self._session.cpu(0)

        def sample(calls: int, repeats: int) -> tuple[float, ...]:
            measure = code.time_evaluator(TURNS, device, number=1, repeat=repeats)
            return tuple(each / calls for each in measure(calls, len(arguments), *flat).results)

        return settled(sample, best, self._patience)


def _copy(tensor: Any, device: Any) -> Any:
    """Return a copy that lies on the same board: nothing goes over the network."""
    import tvm

    return tensor.copyto(tvm.runtime.empty(tensor.shape, tensor.dtype, device))
