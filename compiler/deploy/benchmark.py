"""Kiln against its peers in one run.

Every runtime lives in a process of its own, at its best setting for the precision, with the same inputs
and number of threads. They are measured in rounds: in each round every runtime runs once for a moment, in
random order, while the others are paused; so drift of the machine (clock, neighbours) meets all alike.
Outputs are compared with the original's, and a runtime that is wrong is not a peer to beat.
"""

from __future__ import annotations

import importlib
import json
import math
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from compiler.deploy.benchmark_process import BUILD_SECONDS, WorkerError, WorkerProcess
from compiler.deploy.peers import KILN, PEERS, RUNTIMES
from compiler.deploy.peers.session import PRECISIONS, Workload
from compiler.deploy.profile import Profile
from compiler.support.errors import InternalError, ModelError, UsageError, did_you_mean
from compiler.support.progress import note, stage

TOLERANCE = {"fp32": 1e-3}
"""Largest error over an output's range at which a runtime still counts as right, by precision."""

_MOST_PROFILE_RUNS = 200
"""More do not make a median better, and each one is kept."""

Compile = Callable[[Path, Path], None]
"""Compiles the model file into the bundle; given by who joins the stages."""


@dataclass(frozen=True)
class Plan:
    """What to measure.

    `source` is a model as `kiln compile` takes it, `inputs` descriptions of its inputs, `against` names
    of peers. Each runtime is measured for about `seconds`, or exactly `runs` times, split over `rounds`.
    `layers` asks where Kiln's time goes.
    """

    source: str
    against: tuple[str, ...] = PEERS
    inputs: tuple[str, ...] = ()
    precision: str = "fp32"
    threads: int = 1
    seconds: float = 5.0
    runs: int | None = None
    rounds: int = 10
    seed: int = 0
    layers: bool = False

    def __post_init__(self) -> None:
        for name in self.against:
            if name not in PEERS:
                raise UsageError(
                    f"unknown peer '{name}'{did_you_mean(name, PEERS)} (known: {', '.join(PEERS)})"
                )
        if self.precision not in PRECISIONS:
            raise UsageError(f"expected a precision of {', '.join(PRECISIONS)}, got '{self.precision}'")
        for value, what in ((self.threads, "threads"), (self.rounds, "rounds"), (self.runs, "runs")):
            if value is not None and value < 1:
                raise UsageError(f"expected at least 1 for {what}, got {value}")
        if not self.seconds > 0:
            raise UsageError(f"expected seconds above 0, got {self.seconds}")


@dataclass(frozen=True)
class Timing:
    """One runtime's result; times in milliseconds, `setup_s` in seconds.

    `p10_ms` and `p90_ms` are percentiles of all runs. `max_abs_error` is against the original, over all
    outputs; `error_over_range` divides by the range of the output it occurs in. `setting` is the one that
    won among the peer's settings.
    """

    median_ms: float
    min_ms: float
    p10_ms: float
    p90_ms: float
    runs: int
    max_abs_error: float
    error_over_range: float
    wrong: bool
    setting: str
    setup_s: float
    version: str


@dataclass(frozen=True)
class Report:
    """A benchmark's result. `failed` maps runtimes that could not take part to the reason.

    `ratio` is Kiln's median over the best right peer's: below 1, Kiln is faster. None without a peer.
    `layers` says where Kiln's time goes, None if that was not asked.
    """

    model: str
    precision: str
    threads: int
    cpu: str
    runtimes: dict[str, Timing]
    failed: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    layers: Profile | None = None

    @property
    def best_peer(self) -> str | None:
        """The peer with the least median among those whose outputs are right."""
        right = {n: t.median_ms for n, t in self.runtimes.items() if n != KILN and not t.wrong}
        return min(right, key=right.__getitem__) if right else None

    @property
    def ratio(self) -> float | None:
        """Kiln's median over the best peer's."""
        best = self.best_peer
        if best is None or KILN not in self.runtimes:
            return None
        return self.runtimes[KILN].median_ms / self.runtimes[best].median_ms

    def to_json(self) -> dict[str, Any]:
        """Return plain data; numbers that JSON lacks (infinite errors) become None."""
        runtimes = {
            name: {key: _plain(value) for key, value in vars(timing).items()}
            for name, timing in self.runtimes.items()
        }
        return {
            "model": self.model,
            "precision": self.precision,
            "threads": self.threads,
            "cpu": self.cpu,
            "runtimes": runtimes,
            "best_peer": self.best_peer,
            "ratio": self.ratio,
            "failed": self.failed,
            **({} if self.layers is None else {"layers": self.layers.to_json()}),
        }


def benchmark(plan: Plan, compile_bundle: Compile) -> Report:
    """Measure Kiln and the peers of `plan`.

    Raises:
        KilnError: the model cannot be loaded, or Kiln cannot compile or run it. A peer that fails is
            listed in the report and is no error.
    """
    with tempfile.TemporaryDirectory(prefix="kiln-bench-") as name, ExitStack() as workers:
        folder = Path(name)
        workload = Workload(folder, plan.source, plan.threads, plan.precision, plan.inputs)
        with stage("prepare"):
            workload = _prepare(workload, plan.against)
        with stage("compile"):
            compile_bundle(_what_kiln_compiles(workload), folder / "model.kiln")
            replace(workload, artifacts={**workload.artifacts, "bundle": "model.kiln"}).save()
        return _measure(plan, folder, workers)


def _what_kiln_compiles(workload: Workload) -> Path:
    """Return the user's own file, or the one that holds the weights that a factory happened to draw."""
    source = Path(workload.source)
    if source.is_file():
        return source
    if "module" not in workload.artifacts:
        raise ModelError(workload.troubles["module"])
    return workload.path("module")


def _prepare(workload: Workload, against: Sequence[str]) -> Workload:
    """Write the model's forms by a process of its own."""
    forms = {form for name in against if (form := _artifact(name)) is not None}
    if not Path(workload.source).is_file():
        forms.add("module")
    workload.save()
    command = [
        sys.executable,
        "-m",
        "compiler.deploy.benchmark_workload",
        str(workload.folder),
        *sorted(forms),
    ]
    result = subprocess.run(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, check=False
    )
    if result.returncode == 2:
        raise ModelError(result.stderr.strip())
    if result.returncode:
        log = workload.folder / "prepare.log"
        last = (
            log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            if log.exists()
            else []
        )
        raise InternalError(f"preparing '{workload.source}' failed: {''.join(last) or result.returncode}")
    return Workload.open(workload.folder)


def _artifact(name: str) -> str | None:
    """Return the form of the model that a peer reads, None if it loads the user's own."""
    form = importlib.import_module(f"compiler.deploy.peers.{RUNTIMES[name].module}").ARTIFACT
    return None if form is None else str(form)


def _measure(plan: Plan, folder: Path, workers: ExitStack) -> Report:
    running: dict[str, WorkerProcess] = {}
    built: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    details: dict[str, str] = {}
    for name in (KILN, *plan.against):
        worker = workers.enter_context(WorkerProcess(name, folder, plan.threads))
        with stage(f"start {name}"):
            try:
                built[name] = worker.ask({"do": "build"}, BUILD_SECONDS)
                running[name] = worker
            except WorkerError as error:
                _give_up(name, error, worker, failed, details)
    times: dict[str, list[float]] = {name: [] for name in running}
    order = random.Random(plan.seed)
    with stage("measure"):
        for turn in range(plan.rounds):
            for name in order.sample(sorted(running), len(running)):
                try:
                    count = _count(plan, turn, built[name]["run_ms"])
                    if count:
                        times[name] += _run(running[name], count, built[name]["run_ms"])
                except WorkerError as error:
                    _give_up(name, error, running.pop(name), failed, details)
    layers = _profile(running[KILN], plan, built[KILN]["run_ms"]) if plan.layers else None
    runtimes = {name: timing(times[name], built[name], plan.precision) for name in running}
    return Report(plan.source, plan.precision, plan.threads, cpu_name(), runtimes, failed, details, layers)


def _give_up(
    name: str, error: WorkerError, worker: WorkerProcess, failed: dict[str, str], details: dict[str, str]
) -> None:
    worker.end()
    if name == KILN:
        raise InternalError(f"the compiled model does not run: {error}") from error
    failed[name], details[name] = str(error), error.detail
    note(f"{name} cannot take part: {error}")


def _count(plan: Plan, turn: int, run_ms: float) -> int:
    """Return how often a runtime that takes `run_ms` runs in round `turn`."""
    if plan.runs is not None:
        return plan.runs * (turn + 1) // plan.rounds - plan.runs * turn // plan.rounds
    return max(1, round(plan.seconds * 1e3 / plan.rounds / max(run_ms, 1e-3)))


def _run(worker: WorkerProcess, count: int, run_ms: float) -> list[float]:
    expected = count * run_ms / 1e3
    return [float(t) for t in worker.ask({"do": "run", "count": count}, 60 + 20 * expected)["times_ms"]]


def _profile(worker: WorkerProcess, plan: Plan, run_ms: float) -> Profile:
    """Have Kiln's worker say where its time goes; half of the runs are watched."""
    wanted = plan.seconds * 1e3 / max(run_ms, 1e-3) / 2 if plan.runs is None else plan.runs
    runs = min(max(3, round(wanted)), _MOST_PROFILE_RUNS)
    with stage("profile"):
        try:
            answer = worker.ask({"do": "profile", "runs": runs}, 120 + 50 * runs * run_ms / 1e3)
        except WorkerError as error:
            raise InternalError(f"the compiled model cannot be profiled: {error}") from error
    return Profile.from_plain(answer)


def timing(times_ms: Sequence[float], built: dict[str, Any], precision: str) -> Timing:
    """Summarize the runs of one runtime; `built` is its worker's answer to "build"."""
    return Timing(
        median_ms=float(np.median(times_ms)),
        min_ms=float(np.min(times_ms)),
        p10_ms=float(np.percentile(times_ms, 10)),
        p90_ms=float(np.percentile(times_ms, 90)),
        runs=len(times_ms),
        max_abs_error=float(built["max_abs_error"]),
        error_over_range=float(built["error_over_range"]),
        wrong=not built["error_over_range"] <= TOLERANCE[precision],
        setting=str(built["setting"]),
        setup_s=float(built["setup_s"]),
        version=str(built["version"]),
    )


def cpu_name() -> str:
    """Return the CPU's model name as its maker writes it (never the machine's own name)."""
    from compiler.target_detect import detect

    return str(detect(ask_llvm=False)["description"]).removeprefix("this machine: ")


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(report: Report, path: Path) -> None:
    """Write the report as JSON, whole or not at all."""
    from compiler.support.files import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
