"""Kiln against its peers in one run.

Every runtime lives in a process of its own, at its best setting for the precision, with the same inputs
and number of threads. They are measured in rounds: in each round every runtime runs once for a moment, in
random order, while the others are paused; so drift of the machine (clock, neighbours) meets all alike.
Outputs are compared with the original's, and a runtime that is wrong is not a peer to beat.
"""

from __future__ import annotations

import importlib
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

from compiler.compress.images import ImageTransform
from compiler.deploy.benchmark_process import BUILD_SECONDS, WorkerError, WorkerProcess
from compiler.deploy.benchmark_report import Report, timing
from compiler.deploy.peers import KILN, PEERS, RUNTIMES
from compiler.deploy.peers.session import PRECISIONS, Workload
from compiler.deploy.profile import Profile
from compiler.support.errors import InternalError, KilnError, ModelError, UsageError, did_you_mean
from compiler.support.progress import note, stage
from compiler.target_detect import this_machine

_BF16 = {"avx512bf16", "amx-bf16", "bf16"}
"""Features of CPUs that compute in bfloat16."""

_MOST_PROFILE_RUNS = 200
"""More do not make a median better, and each one is kept."""

Samples = list[tuple[np.ndarray, ...]]
"""Inputs in the order of the model's signature, one run each."""

Compile = Callable[[Path, Path, Samples], None]
"""Compiles the model file into the bundle, calibrated with samples if there are any; given by who joins the
stages."""


@dataclass(frozen=True)
class Plan:
    """What to measure.

    `source` is a model as `kiln compile` takes it, `inputs` descriptions of its inputs, `against` names
    of peers. Each runtime is measured for about `seconds`, or exactly `runs` times, split over `rounds`.
    `layers` asks where Kiln's time goes. Below fp32, `calibrate` names data to calibrate and judge with, as
    `compiler.compress.data.open_data` takes it, and `transform` the one of its images; `quantize` is the
    scheme or recipe that Kiln takes for the precision, where it is not that of the same name. With
    `peers_only` Kiln is neither compiled nor measured.
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
    calibrate: str | None = None
    transform: str | None = None
    quantize: str | None = None
    peers_only: bool = False

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
        self._check_data()

    def _check_data(self) -> None:
        """Refuse data that would not be used."""
        if self.calibrate is not None and self.precision == "fp32":
            raise UsageError("calibration data is for lower precisions: add --precision int8 or bf16")
        if self.quantize is not None and self.precision == "fp32":
            raise UsageError("a scheme is for lower precisions: add --precision int8 or bf16")
        if self.transform is not None:
            if self.calibrate is None:
                raise UsageError("an image transform needs calibration data: give a folder of images")
            ImageTransform.parse(self.transform)


@dataclass(frozen=True, eq=False)
class _Absent:
    """Runtimes that cannot take part: the reason of each, and the detail for who wants to mend it."""

    reasons: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, reason: str, detail: str = "") -> None:
        self.reasons[name] = reason
        if detail:
            self.details[name] = detail
        note(f"{name} cannot take part: {reason}")


def benchmark(plan: Plan, compile_bundle: Compile) -> Report:
    """Measure Kiln and the peers of `plan`.

    Below float32 peers are measured even where Kiln cannot compile the model; the report says so.

    Raises:
        KilnError: the model or the calibration data cannot be loaded, or Kiln cannot compile or run it. A
            peer that fails is listed in the report and is no error.
    """
    with tempfile.TemporaryDirectory(prefix="kiln-bench-") as name, ExitStack() as workers:
        absent = _Absent()
        against = [name for name in plan.against if not _lacks(name, plan.precision, absent)]
        workload = Workload(
            Path(name), plan.source, plan.threads, plan.precision, plan.inputs, plan.calibrate, plan.transform
        )
        with stage("prepare"):
            workload = _prepare(workload, against)
        if plan.peers_only:
            return _measure(plan, against, workload, workers, absent)
        with stage("compile"):
            try:
                _compile(workload, compile_bundle)
            except KilnError as error:
                if plan.precision == "fp32" or plan.layers or not against:
                    raise
                absent.add(KILN, str(error))
        names = against if KILN in absent.reasons else [KILN, *against]
        return _measure(plan, names, workload, workers, absent)


def _lacks(name: str, precision: str, absent: _Absent) -> bool:
    """Whether a peer has no such precision; the reason is noted."""
    reason = RUNTIMES[name].lacks.get(precision)
    if reason is not None:
        absent.add(name, f"no {precision}: {reason}")
    return reason is not None


def _compile(workload: Workload, compile_bundle: Compile) -> None:
    samples = [tuple(inputs) for inputs, _ in workload.samples()] if workload.data else []
    compile_bundle(_what_kiln_compiles(workload), workload.folder / "model.kiln", samples)
    replace(workload, artifacts={**workload.artifacts, "bundle": "model.kiln"}).save()


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


def _measure(
    plan: Plan, names: Sequence[str], workload: Workload, workers: ExitStack, absent: _Absent
) -> Report:
    running: dict[str, WorkerProcess] = {}
    built: dict[str, dict[str, Any]] = {}
    for name in names:
        worker = workers.enter_context(WorkerProcess(name, workload.folder, plan.threads))
        with stage(f"start {name}"):
            try:
                built[name] = worker.ask({"do": "build"}, BUILD_SECONDS)
                running[name] = worker
            except WorkerError as error:
                _give_up(name, error, worker, absent)
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
                    _give_up(name, error, running.pop(name), absent)
    return Report(
        model=plan.source,
        precision=plan.precision,
        threads=plan.threads,
        cpu=cpu_name(),
        runtimes={name: timing(times[name], built[name], plan.precision) for name in running},
        failed=absent.reasons,
        details=absent.details,
        layers=_profile(running[KILN], plan, built[KILN]["run_ms"]) if plan.layers else None,
        calibration=workload.data,
        notes=_notes(workload),
    )


def _give_up(name: str, error: WorkerError, worker: WorkerProcess, absent: _Absent) -> None:
    worker.end()
    if name == KILN:
        raise InternalError(f"the compiled model does not run: {error}") from error
    absent.add(name, str(error), error.detail)


def _notes(workload: Workload) -> tuple[str, ...]:
    """Return what a reader of the numbers must know."""
    notes = list(workload.data.notes) if workload.data else []
    features = this_machine().features
    if workload.precision == "bf16" and features is not None and not features & _BF16:
        notes.append("this CPU has no bfloat16 instructions: bf16 is emulated here, or float32 in its place")
    return tuple(notes)


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


def cpu_name() -> str:
    """Return the CPU's model name as its maker writes it, and LLVM's name of its kind.

    Never the machine's own name. Virtual machines say no more than the maker's: the kind tells them apart.
    """
    from compiler.target_detect import detect

    found = detect()
    return f"{str(found['description']).removeprefix('this machine: ')} ({found['cpu']})"
