"""The process in which one runtime of a benchmark lives, so that runtimes cannot disturb each other.

It is told what to do on standard input and answers on standard output, a line of JSON each:

    {"do": "build"}                       -> {"setting": ..., "run_ms": ..., "accuracy": {...}, ...}
    {"do": "run", "count": 20}            -> {"times_ms": [...]}
    {"do": "profile", "runs": 20}         -> where the time of Kiln goes (`compiler.deploy.profile.Profile`)

An answer with "failed" says why something could not be done; "detail" then holds the traceback.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.deploy.benchmark_accuracy import Accuracy, assess
from compiler.deploy.peers import RUNTIMES
from compiler.deploy.peers.session import PeerError, Session, Variants, Workload, require

TRIAL_SECONDS = 0.5
"""How long each setting of a peer is tried before the fastest is chosen."""

WARM_UP_SECONDS = 0.03
"""How long a runtime warms caches and wakes its threads before each round, at least one run."""


@dataclass(frozen=True, eq=False)
class _Tried:
    """A setting of a peer that works."""

    setting: str
    session: Session
    run_ms: float
    accuracy: Accuracy
    right: bool

    @property
    def rank(self) -> tuple[bool, float]:
        """Less is better: right, then fast."""
        return not self.right, self.run_ms

    def to_plain(self) -> dict[str, Any]:
        """Return what a report says of it."""
        return {"ms": self.run_ms, "sqnr_db": self.accuracy.sqnr_db, "wrong": not self.right}


class Worker:
    """One runtime: builds its session, then runs it on demand."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._workload = Workload.open(folder)
        self._session: Session | None = None

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Do what `message` asks for."""
        if message["do"] == "build":
            return self.build()
        if message["do"] == "profile":
            return self._built().profile(int(message["runs"]))
        return {"times_ms": self.run(int(message["count"]))}

    def build(self) -> dict[str, Any]:
        """Make the session at its best setting, and say how near it is to the original.

        Raises:
            PeerError: the peer is not installed, or no setting of it works.
        """
        module = importlib.import_module(f"compiler.deploy.peers.{RUNTIMES[self._name].module}")
        require(*module.PACKAGES)
        if module.ARTIFACT is not None:
            self._workload.path(module.ARTIFACT)
        start = time.perf_counter()
        best, settings = self._best(module.variants(self._workload))
        self._session = best.session
        return {
            "setting": best.setting,
            "run_ms": best.run_ms,
            "setup_s": time.perf_counter() - start,
            "version": _version(module.PACKAGES[0]),
            "accuracy": best.accuracy.to_plain(),
            "settings": settings,
        }

    def _best(self, variants: Variants) -> tuple[_Tried, dict[str, Any]]:
        """Try every setting; return the fastest of those that are right, and what was found of each."""
        best: _Tried | None = None
        trouble: Exception = PeerError("it has no setting for this model")
        found: dict[str, Any] = {}
        for setting, make in variants.items():
            try:
                tried = self._try(setting, make())
            except Exception as error:  # one setting may fail where another works
                trouble, found[setting] = error, {"failed": reason(error)}
                continue
            found[setting] = tried.to_plain()
            if best is None or tried.rank < best.rank:
                best = tried
        if best is None:
            raise trouble
        return best, found

    def _try(self, setting: str, session: Session) -> _Tried:
        milliseconds, accuracy = _trial_ms(session), assess(session, self._workload)
        right = accuracy.is_right(self._workload.precision)
        return _Tried(setting, session, milliseconds, accuracy, right)

    def run(self, count: int) -> list[float]:
        """Warm up, then return the times of `count` runs in milliseconds."""
        session = self._built()
        until = time.perf_counter() + WARM_UP_SECONDS
        session.run()
        while time.perf_counter() < until:
            session.run()
        return _times(session, count)

    def _built(self) -> Session:
        if self._session is None:
            raise PeerError("it was not built")
        return self._session


def _trial_ms(session: Session) -> float:
    """Return the least time of a run in milliseconds, after a first one that may still compile.

    The least: settings are tried one after another, and what else runs must not choose among them.
    """
    session.run()
    session.run()
    until = time.perf_counter() + TRIAL_SECONDS
    times: list[float] = []
    while not times or time.perf_counter() < until:
        times += _times(session, 1)
    return min(times)


def _times(session: Session, count: int) -> list[float]:
    times: list[float] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(count):
            start = time.perf_counter_ns()
            session.run()
            times.append((time.perf_counter_ns() - start) / 1e6)
    finally:
        if collecting:
            gc.enable()
    return times


def _version(package: str) -> str:
    names = importlib.metadata.packages_distributions() if sys.version_info >= (3, 10) else {}
    name = "kiln-compiler" if package == "tvm" else names.get(package, [package])[0]
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def reason(error: Exception) -> str:
    """Return in one line why a peer cannot take part."""
    from compiler.deploy.benchmark_workload import one_line

    return str(error) if isinstance(error, PeerError) else one_line(error)


def serve(worker: Worker, lines: Iterator[str], write: Any) -> None:
    """Answer every line until the input ends."""
    for line in lines:
        try:
            reply = worker.answer(json.loads(line))
        except Exception as error:
            reply = {"failed": reason(error), "detail": traceback.format_exc()}
        write(json.dumps(reply) + "\n")


def main(name: str, folder: Path) -> None:
    """Serve on standard input and output; whatever a runtime prints goes to standard error."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    serve(Worker(name, folder), iter(sys.stdin.readline, ""), channel.write)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
