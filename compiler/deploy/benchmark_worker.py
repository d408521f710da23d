"""The process in which one runtime of a benchmark lives, so that runtimes cannot disturb each other.

It is told what to do on standard input and answers on standard output, a line of JSON each:

    {"do": "build"}                       -> {"setting": ..., "run_ms": ..., "max_abs_error": ..., ...}
    {"do": "run", "count": 20}            -> {"times_ms": [...]}
    {"do": "profile", "runs": 20}         -> where the time of Kiln goes (`compiler.deploy.profile.Profile`)

An answer with "failed" says why something could not be done; "detail" then holds the traceback.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compiler.deploy.peers import RUNTIMES
from compiler.deploy.peers.session import PeerError, Session, Workload

TRIAL_SECONDS = 0.5
"""How long each setting of a peer is tried before the fastest is chosen."""

WARM_UP_SECONDS = 0.03
"""How long a runtime warms caches and wakes its threads before each round, at least one run."""


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
        """Make the session at its best setting and compare its outputs with the reference.

        Raises:
            PeerError: the peer is not installed, or no setting of it works.
        """
        module = importlib.import_module(f"compiler.deploy.peers.{RUNTIMES[self._name].module}")
        missing = [name for name in module.PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise PeerError(f"not installed: {', '.join(missing)} (pip install 'kiln-compiler[peers]')")
        if module.ARTIFACT is not None:
            self._workload.path(module.ARTIFACT)
        best, setting, best_ms, trouble = None, "", float("inf"), None
        start = time.perf_counter()
        for name, make in module.variants(self._workload).items():
            try:
                session = make()
                milliseconds = _try(session)
            except Exception as error:  # one setting may fail where another works
                trouble = error
                continue
            if milliseconds < best_ms:
                best, setting, best_ms = session, name, milliseconds
        if best is None:
            raise trouble if trouble is not None else PeerError("it has no setting for this model")
        self._session = best
        absolute, relative = compare(best.outputs(), self._workload.reference())
        return {
            "setting": setting,
            "run_ms": best_ms,
            "setup_s": time.perf_counter() - start,
            "version": _version(module.PACKAGES[0]),
            "max_abs_error": absolute,
            "error_over_range": relative,
        }

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


def _try(session: Session) -> float:
    """Return the median time of a run in milliseconds, after a first one that may still compile."""
    session.run()
    session.run()
    until = time.perf_counter() + TRIAL_SECONDS
    times: list[float] = []
    while not times or time.perf_counter() < until:
        times += _times(session, 1)
    return float(np.median(times))


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


def compare(outputs: list[np.ndarray], reference: list[np.ndarray]) -> tuple[float, float]:
    """Return the largest absolute error, and the largest error of an output over that output's range.

    The range of an output is its greatest minus its least value in the reference (its greatest magnitude
    where it is constant). A NaN that the reference lacks counts as an infinite error.

    Raises:
        PeerError: the outputs are not as many or not of the shapes of the reference.
    """
    if [a.shape for a in outputs] != [a.shape for a in reference]:
        raise PeerError(f"its outputs have shapes {_shapes(outputs)}, the original's {_shapes(reference)}")
    worst, worst_relative = 0.0, 0.0
    for got, expected in zip(outputs, reference, strict=True):
        if not expected.size:
            continue
        got64, expected64 = got.astype(np.float64), expected.astype(np.float64)
        same = (got64 == expected64) | (np.isnan(got64) & np.isnan(expected64))
        with np.errstate(invalid="ignore"):
            error = float(np.where(same, 0.0, np.abs(got64 - expected64)).max())
        error = error if not np.isnan(error) else float("inf")
        finite = expected64[np.isfinite(expected64)]
        extent = float(np.ptp(finite) or np.abs(finite).max()) if finite.size else 0.0
        relative = error / extent if extent else (float("inf") if error else 0.0)
        worst, worst_relative = max(worst, error), max(worst_relative, relative)
    return worst, worst_relative


def _shapes(arrays: Iterable[np.ndarray]) -> str:
    return ", ".join("x".join(map(str, a.shape)) or "scalar" for a in arrays)


def _version(package: str) -> str:
    names = importlib.metadata.packages_distributions() if sys.version_info >= (3, 10) else {}
    name = "kiln-compiler" if package == "tvm" else names.get(package, [package])[0]
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def serve(worker: Worker, lines: Iterator[str], write: Any) -> None:
    """Answer every line until the input ends."""
    for line in lines:
        try:
            reply = worker.answer(json.loads(line))
        except Exception as error:
            from compiler.deploy.benchmark_workload import one_line

            text = str(error) if isinstance(error, PeerError) else one_line(error)
            reply = {"failed": text, "detail": traceback.format_exc()}
        write(json.dumps(reply) + "\n")


def main(name: str, folder: Path) -> None:
    """Serve on standard input and output; whatever a runtime prints goes to standard error."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    serve(Worker(name, folder), iter(sys.stdin.readline, ""), channel.write)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
