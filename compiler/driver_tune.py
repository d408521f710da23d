"""The driver's third page: a model's kernels are tuned for a device, and what is found goes to a log.

import    the model becomes one IRModule, quantized if wanted
optimize  the passes, as for a compilation: these are the kernels that it will have
tune      trials until the budget is spent; see `compiler.tune.tuner`
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from compiler import frontend
from compiler.build.jit import jit
from compiler.compress.recipe import Recipe
from compiler.deploy import Session as DeviceSession
from compiler.deploy import choose_threads, use_threads, why_not_run
from compiler.deploy.benchmark import cpu_name
from compiler.deploy.peak import interleaved_seconds, median_seconds
from compiler.driver import build_module, host_builder
from compiler.driver_compress import compress, make_request
from compiler.frontend.random_inputs import fresh_inputs
from compiler.passes import optimize
from compiler.schedule.log import SUFFIX, Log, Logged, log_files, read_log, read_logs
from compiler.schedule.records import Record, identity
from compiler.schedule.tuned import (
    Tuned,
    device_folder,
    log_folders,
    read_tuned,
    similar_records,
    user_folder,
)
from compiler.support.errors import UsageError
from compiler.support.files import private_folder, safe_name
from compiler.support.progress import note, stage
from compiler.target import HOST, Target
from compiler.target import load as load_target
from compiler.tune.budget import Budget, seconds_until
from compiler.tune.past import past_of
from compiler.tune.session import Session, begin_or_resume, end
from compiler.tune.task import Task, find_tasks
from compiler.tune.trial import Kernel, Patience, Tools
from compiler.tune.tuner import Facts, Listener, Tuner, recall
from compiler.tune.workers import Workers

_MOST_COPIES = 256
_SMALL = 1 << 12
"""Bytes of a weight that is found in the nearest cache wherever it was."""

_TOLERANCES = {
    "float32": 1e-3,
    "float16": 2e-3,
    "bfloat16": 1e-2,
    "uint16": 1e-2,
    "int8": 1e-2,
    "uint8": 1e-2,
}
"""How far apart sums of floats in different orders may be, relative to the greatest result: where that is
rounded to fewer bits, the next number may be taken."""


@dataclass(frozen=True, eq=False)
class TuneResult:
    """What a tuning found.

    Attributes:
        tasks: with all that is known of them.
        log: where the records are.
        trials: of this session.
        spent: seconds of this session.
        searching: seconds of these in which nothing was built or measured.
        untuned: seconds of one run of the network with default schedules, measured.
        tuned: the same with the best schedules found, measured in turns with it.
    """

    tasks: Sequence[Task]
    log: Path
    trials: int
    spent: float
    searching: float
    untuned: float
    tuned: float


def tune(
    model: Any,
    example_inputs: Any = None,
    *,
    target: str | Path | Target = HOST,
    logs: str | Path | None = None,
    name: str | None = None,
    trials: int | None = None,
    seconds: float | None = None,
    until: str | None = None,
    threads: int | None = None,
    builders: int | None = None,
    inputs: Sequence[str] | None = None,
    quantize: str | Path | Recipe | None = None,
    calibrate: Any = None,
    similar: Sequence[str] = (),
    listener: Listener | None = None,
) -> TuneResult:
    """Tune the kernels of a model for a device; what is found goes to a log, which `compile` uses.

    A session that was cut off goes on where it was; its budget too, unless another one is given.

    Args:
        model: as for `compiler.compile`.
        example_inputs: as for `compiler.compile`.
        target: the device; it has to be this machine.
        logs: the folder of the logs; by default the user's own.
        name: of the log; by default that of the model.
        trials: the most trials.
        seconds: the most seconds; 1200 where nothing limits the session.
        until: the time of day to end at, such as ``"07:00"``.
        threads: that kernels run on; by default one a core.
        builders: processes that build candidates; by default one a core.
        inputs: inputs described as text, as for `compiler.compile`.
        quantize: a scheme or recipe, as for `compiler.compile`.
        calibrate: data for it.
        similar: names of targets, logs or folders of logs: what is best there is tried first, and teaches.
        listener: is told of every trial.

    Raises:
        KilnError: one of its kinds; what was measured is safe.
    """
    device, wanted = tunable(target), wanted_session(trials, seconds, until)
    count = choose_threads(threads)
    use_threads(count)
    elsewhere = similar_records(similar, device)
    with stage("import"):
        imported = frontend.load(model, example_inputs, inputs=inputs)
    folder = Path(logs) if logs is not None else user_folder()
    path = folder / device_folder(device) / f"{name or log_name(imported.origin)}{SUFFIX}"
    with private_folder() as work:
        if quantize is not None:
            request = make_request(quantize, calibrate, check=False)
            subject = compress(imported, request, host_builder(work / "host")).model
        else:
            subject = imported
        with stage("untuned"):
            untuned = _built(subject, device, work / "untuned", None, count)
            start = median_seconds(untuned, _WATCHED)
            note(f"{start * 1e3:.3f} ms with default schedules")
        with stage("optimize"):
            mod, _ = optimize(subject.mod, device)
        with stage("tune"):
            session = begin_or_resume(path, wanted, _DEFAULT)
            tuner = tune_module(
                mod, device, path, session, listener or Quiet(), threads=count, builders=builders or count,
                similar=elsewhere, start=start,
            )  # fmt: skip
            end(path)
        with stage("tuned"):
            found, _ = read_tuned(device, count, [path])
            # Both now, in turns: the clock and the neighbours may be others than before the tuning.
            tuned = _built(subject, device, work / "tuned", found, count)
            before, after = interleaved_seconds([untuned, tuned], _WATCHED)
            note(f"{after * 1e3:.3f} ms with the best schedules, {after / before:.3f} of before")
    return TuneResult(tuner.tasks, path, tuner.trials, tuner.spent, tuner.searching, before, after)


def tunable(target: str | Path | Target) -> Target:
    """Return the device of that name, if its kernels can be tuned.

    Raises:
        KilnError: there is no such device, it cannot be tuned, or what learns is not installed.
    """
    device = load_target(target)
    if device.kind != "cpu":
        raise UsageError(f"'{device.name}' cannot be tuned: kernels of {device.kind} have no decisions yet")
    if (why := why_not_run(device)) is not None:
        raise UsageError(f"'{device.name}' cannot be tuned here: {why}")
    if importlib.util.find_spec("xgboost") is None:
        raise UsageError("tuning learns with XGBoost: pip install 'kiln-compiler[tune]'")
    return device


_DEFAULT = Session("", seconds=1200.0)


class Quiet:
    """The listener of a library."""

    def started(self, tuner: Tuner) -> None:
        """Ignore it."""

    def phase(self, name: str) -> None:
        """Ignore it."""

    def saw(self, task: Task, record: Record) -> None:
        """Ignore it."""


def log_name(origin: str) -> str:
    """Return the name of the log of a model."""
    return safe_name(origin.rpartition(":")[2].rpartition("/")[2]) or "model"


def wanted_session(trials: int | None, seconds: float | None, until: str | None) -> Session | None:
    """Return the limits that the user gave, None if there are none.

    Raises:
        UsageError: one makes no sense.
    """
    Budget(trials, seconds)
    ends = None if until is None else time.time() + seconds_until(until, datetime.now())
    return None if (trials, seconds, ends) == (None, None, None) else Session("", trials, seconds, ends)


def _built(
    model: frontend.Model, target: Target, folder: Path, tuned: Tuned | None, threads: int
) -> Callable[[], Any]:
    """Return what runs a build of `model` once, on inputs that are in place."""
    built, _ = build_module(model.mod, target, folder, tuned=tuned)
    session = DeviceSession(built.library, model.signature, threads=threads)
    arrays = fresh_inputs(model, 0)
    return lambda: session.run_flat(arrays)


_WATCHED = 2.0
"""Seconds over which the latency of a network is measured."""


def tune_module(
    mod: Any,
    target: Target,
    path: Path,
    session: Session,
    listener: Listener,
    *,
    threads: int,
    builders: int,
    patience: Patience | None = None,
    similar: Sequence[Record] = (),
    start: float = 0.0,
) -> Tuner:
    """Tune the kernels of an optimized module, and return the tuner when it has ended.

    What any log of the device says of these kernels is known, and not measured again.

    Raises:
        UsageError: the log cannot be written.
    """
    tasks = find_tasks(mod, target)
    versions = version("kiln-compiler"), version("apache-tvm")
    facts = Facts(identity(target), threads, cpu_name(), *versions, session.name)
    with Log(path) as log:
        own, others = read_log(path), _other_logs(target, path)
        for problem in (*own.problems, *others.problems):
            note(f"warning: {problem}")
        # Of the same trial the last record counts: this log's.
        trials, spent = recall(tasks, [*others.records, *own.records], facts)
        known = sum(1 for task in tasks if task.first is not None)
        if known and not trials:
            note(f"{known} of {len(tasks)} kernels are known from earlier tunings")
        past = past_of(tasks, [*others.records, *own.records], similar, facts.device, threads)
        if trials:
            note(f"going on after {trials} trials in {spent:.0f} s")
        weights = sum(_bytes(buffer) for task in tasks for buffer, constant in _parameters(task) if constant)
        tools = Tools(jit, use_threads)
        with Workers(builders, target, tools, threads, patience) as workers:
            numbers = {task: workers.add(_kernel(task, weights, target)) for task in tasks}
            budget = session.budget(spent)
            tuner = Tuner(
                tasks, numbers, workers, log, facts, budget, listener, trials, spent, past=past, start=start
            )
            tuner.run()
    return tuner


def _other_logs(target: Target, path: Path) -> Logged:
    """Return what all logs of a device but `path` hold: shipped, the user's own, and those beside it."""
    folders = dict.fromkeys(folder.resolve() for folder in log_folders(target, [path.parent]))
    return read_logs(each for each in log_files(folders) if each != path.resolve())


def _kernel(task: Task, weights: int, target: Target) -> Kernel:
    """Return a task's kernel with weights as far away as they are in a network of `weights` bytes of them."""
    far = min(weights, 2 * max(target.caches.l3, target.caches.l2))
    cold = tuple(
        min(_MOST_COPIES, max(1, math.ceil(far / _bytes(parameter))))
        if constant and _bytes(parameter) > _SMALL
        else 1
        for parameter, constant in _parameters(task)
    )
    output = str(task.function.params[-1].ty.dtype)
    return Kernel(task.names[0], tvm.ir.save_json(task.function), cold, _TOLERANCES.get(output, 1e-3))


def _parameters(task: Task) -> list[tuple[Any, bool]]:
    return list(zip((parameter.ty for parameter in task.function.params), task.constants, strict=True))


def _bytes(buffer: Any) -> int:
    bits = tvm.DataType(str(buffer.dtype)).bits
    return max(1, int(np.prod([int(extent) for extent in buffer.shape])) * int(bits) // 8)
