"""The driver's third page: a model's kernels are tuned for a device, and what is found goes to a log.

import    the model becomes one IRModule, quantized if wanted
optimize  the passes, as for a compilation: these are the kernels that it will have
tune      trials until the budget is spent; see `compiler.tune.tuner`
network   the fastest schedules once more, where they will run; see `compiler.driver_network`
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from compiler import frontend
from compiler.build.jit import jit
from compiler.compress.recipe import Recipe
from compiler.deploy import Session as DeviceSession
from compiler.deploy import choose_threads, use_threads, why_not_run
from compiler.deploy.peak import interleaved_seconds, median_seconds
from compiler.driver import build_module, host_builder
from compiler.driver_boards import Elsewhere, Lab, at
from compiler.driver_choices import Quiet, facts_of, measure_choices
from compiler.driver_compress import compress, make_request
from compiler.driver_network import has_time, measure_in_network
from compiler.frontend.random_inputs import fresh_inputs
from compiler.passes import optimize
from compiler.passes.choices import laid_out
from compiler.schedule.log import SUFFIX, Log, check_log, read_log
from compiler.schedule.records import Record
from compiler.schedule.tuned import (
    Tuned,
    device_folder,
    other_logs,
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
from compiler.tune.kernel import kernel_of, weights_of
from compiler.tune.past import past_of
from compiler.tune.session import Session, begin_or_resume, end
from compiler.tune.task import Task, find_tasks
from compiler.tune.trial import Patience, Tools
from compiler.tune.tuner import Listener, Tuner, recall
from compiler.tune.workers import Workers


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
        estimated: whether both are sums of kernels' times: on boards no network was run.
    """

    tasks: Sequence[Task]
    log: Path
    trials: int
    spent: float
    searching: float
    untuned: float
    tuned: float
    estimated: bool = False


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
    board: str | None = None,
    tracker: str | None = None,
    ssh: str | None = None,
    workers: str | None = None,
    listener: Listener | None = None,
) -> TuneResult:
    """Tune the kernels of a model for a device; what is found goes to a log, which `compile` uses.

    A session that was cut off goes on where it was; its budget too, unless another one is given.

    Args:
        model: as for `compiler.compile`.
        example_inputs: as for `compiler.compile`.
        target: the device; it has to be this machine unless there are boards.
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
        board: the key of boards to measure on; by default the descriptor's, if there is a tracker.
        tracker: ``HOST:PORT`` that knows them; by default this machine's, if there is a board.
        ssh: ``USER@HOST`` from where both are reached.
        workers: ``dask://HOST:PORT`` of a cluster that builds in place of this machine.
        listener: is told of every trial.

    Raises:
        KilnError: one of its kinds; what was measured is safe.
    """
    lab = Lab(board, tracker, ssh, workers)
    device, wanted = tunable(target, lab.has_boards), wanted_session(trials, seconds, until)
    if builders is not None and builders < 1:
        raise UsageError(f"expected at least 1 process that builds, got {builders}")
    if name is not None and name != safe_name(name):
        raise UsageError(f"expected a plain name of a log, got '{name}'; --logs gives its folder")
    count = lab.threads(device, threads)
    if not lab.has_boards:
        use_threads(count)
    others = similar_records(similar, device)
    folder = Path(logs) if logs is not None else user_folder()
    with private_folder() as work, at(lab, device) as away:
        with stage("import"):
            imported = frontend.load(model, example_inputs, inputs=inputs)
        path = folder / device_folder(device) / f"{name or log_name(imported.origin)}{SUFFIX}"
        check_log(path)
        if quantize is not None:
            request = make_request(quantize, calibrate, check=False)
            subject = compress(imported, request, host_builder(work / "host")).model
        else:
            subject = imported
        start = 0.0
        if not lab.has_boards:
            with stage("untuned"):
                untuned = _built(subject, device, work / "untuned", None, count)
                start = median_seconds(untuned, _WATCHED)
                note(f"{start * 1e3:.3f} ms with default schedules")
        session = begin_or_resume(path, wanted, _DEFAULT)
        processes = builders or choose_threads(None if lab.has_boards else threads)
        with stage("choices"):
            if lab.has_boards:
                chosen, _ = read_tuned(device, count, [path] if path.exists() else [])
            else:
                chosen = measure_choices(
                    subject, device, path, session, work / "choices", threads=count, builders=processes
                )
        with stage("optimize"):
            laid = laid_out(subject.mod, device, chosen.choose)
            mod, _ = optimize(subject.mod, laid, choose=chosen.choose)
        with stage("tune"):
            tuner = tune_module(
                mod, laid, path, session, listener or Quiet(), threads=count, builders=processes,
                device=device, similar=others, start=start, away=away,
            )  # fmt: skip
        if not lab.has_boards and has_time(tuner.budget):
            with stage("network"):
                measure_in_network(
                    subject, device, path, tuner.tasks, chosen, tuner.facts, work / "network", tuner.elapsed()
                )
        end(path)
        with stage("tuned"):
            if lab.has_boards:
                before, after = _estimate(tuner.tasks)
            else:
                found, _ = read_tuned(device, count, [path])
                # Both now, in turns: the clock and the neighbours may be others than before the tuning.
                tuned = _built(subject, device, work / "tuned", found, count)
                before, after = interleaved_seconds([untuned, tuned], _WATCHED)
            note(f"{after * 1e3:.3f} ms with the best schedules, {after / before:.3f} of before")
    return TuneResult(
        tuner.tasks, path, tuner.trials, tuner.spent, tuner.searching, before, after, lab.has_boards
    )


def _estimate(tasks: Sequence[Task]) -> tuple[float, float]:
    """Return the seconds that all kernels take which were measured, by default and tuned.

    Raises:
        UsageError: none was.
    """
    known = [task for task in tasks if task.first is not None]
    if not known:
        raise UsageError("no kernel was measured: the log says why (`kiln logs list`)")
    return sum(task.untuned for task in known), sum(task.total for task in known)


def tunable(target: str | Path | Target, boards: bool = False) -> Target:
    """Return the device of that name, if its kernels can be tuned: on this machine, or on `boards`.

    Raises:
        KilnError: there is no such device, it cannot be tuned, or what learns is not installed.
    """
    device = load_target(target)
    if device.kind != "cpu":
        raise UsageError(f"'{device.name}' cannot be tuned: kernels of {device.kind} have no decisions yet")
    if not boards and (why := why_not_run(device)) is not None:
        raise UsageError(
            f"'{device.name}' cannot be tuned here: {why}; where boards are at a tracker, give "
            "--tracker HOST:PORT (`kiln board`)"
        )
    if importlib.util.find_spec("xgboost") is None:
        raise UsageError("tuning learns with XGBoost: pip install 'kiln-compiler[tune]'")
    return device


_DEFAULT = Session("", seconds=1200.0)


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
    device: Target | None = None,
    similar: Sequence[Record] = (),
    start: float = 0.0,
    away: Elsewhere | None = None,
) -> Tuner:
    """Tune the kernels of an optimized module, and return the tuner when it has ended.

    Of what other sessions measured on the device only the best is measured again. `device` is the one
    that records are of, where `target` is the same with other vectors. `away` builds and runs trials in place
    of processes here that do both.

    Raises:
        UsageError: the log cannot be written.
    """
    tasks = find_tasks(mod, target)
    facts = facts_of(device or target, threads, session)
    if away is not None and away.where.tracker is not None:
        facts = replace(facts, cpu=target.description or target.cpu)
    with Log(path) as log:
        own, others = read_log(path), other_logs(target, path)
        for problem in (*own.problems, *others.problems):
            note(f"warning: {problem}")
        every = [*others.records, *own.records]
        trials, spent = recall(tasks, every, facts)
        past = past_of(tasks, every, similar, facts.device, threads, facts.session)
        if past.hints and not trials:
            count = len(past.hints)
            note(f"{count} of {len(tasks)} kernels are known from earlier tunings: their best come first")
        if trials:
            note(f"going on after {trials} trials in {spent:.0f} s")
        weights = weights_of(tasks)
        with (
            Workers(builders, target, Tools(jit, use_threads), threads, patience)
            if away is None
            else away.measures(target, threads, builders, patience)
        ) as workers:
            numbers = {task: workers.add(kernel_of(task, weights, target)) for task in tasks}
            budget = session.budget(spent)
            tuner = Tuner(
                tasks, numbers, workers, log, facts, budget, listener, trials, spent, past=past, start=start
            )
            tuner.run()
    return tuner
