"""The driver's page about logs: what goes to MetaSchedule's own database, and what comes from it.

Logs hold no kernels and the database holds no names, so a model is at hand: its kernels are those that a
compilation would schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compiler import frontend
from compiler.compress.recipe import Recipe
from compiler.deploy import choose_threads
from compiler.driver import host_builder
from compiler.driver_choices import facts_of
from compiler.driver_compress import compress, make_request
from compiler.passes import optimize
from compiler.passes.choices import laid_out
from compiler.schedule.log import write_log
from compiler.schedule.tuned import Tuned, read_tuned
from compiler.support.errors import InputError, UsageError
from compiler.support.files import make_folder, private_folder
from compiler.support.progress import note, stage
from compiler.target import HOST, Target
from compiler.target import load as load_target
from compiler.tune.metaschedule import RECORDS, WORKLOADS, Moved, from_database, to_database
from compiler.tune.session import Session
from compiler.tune.task import Task, find_tasks


def export_metaschedule(
    model: Any,
    folder: str | Path,
    example_inputs: Any = None,
    *,
    logs: Sequence[str | Path] = (),
    target: str | Path | Target = HOST,
    threads: int | None = None,
    inputs: Sequence[str] | None = None,
    quantize: str | Path | Recipe | None = None,
    calibrate: Any = None,
) -> Moved:
    """Write the best records of a model's kernels to a new database of MetaSchedule's in `folder`.

    Args:
        model: as for `compiler.compile`.
        folder: of the database; it must not hold one yet.
        example_inputs: as for `compiler.compile`.
        logs: logs or folders of them, beside the shipped ones and the user's own.
        target: the device of the records.
        threads: of the records; by default one a core.
        inputs: inputs described as text, as for `compiler.compile`.
        quantize: a scheme or recipe, as for `compiler.compile`.
        calibrate: data for it.

    Raises:
        KilnError: one of its kinds; nothing was written then.
    """
    place, device, count = Path(folder), _cpu(target), choose_threads(threads)
    for name in (WORKLOADS, RECORDS):
        if (place / name).exists():
            raise UsageError(f"'{place}' holds a database already ('{name}'): give another folder")
    tuned, _ = read_tuned(device, count, [Path(each) for each in logs])
    tasks, laid = _tasks(model, example_inputs, device, tuned, inputs, quantize, calibrate)
    if not any(task.workload in tuned.records for task in tasks):
        raise InputError(
            f"no kernel of the model has a record of '{device.name}' on {count} threads: tune first, or name "
            "logs with --logs"
        )
    make_folder(place)
    with stage("export"):
        moved = to_database(tasks, tuned, laid, place)
        _say(moved)
    return moved


def import_metaschedule(
    model: Any,
    folder: str | Path,
    log: str | Path,
    example_inputs: Any = None,
    *,
    target: str | Path | Target = HOST,
    threads: int | None = None,
    inputs: Sequence[str] | None = None,
    quantize: str | Path | Recipe | None = None,
    calibrate: Any = None,
) -> Moved:
    """Write what a database of MetaSchedule's in `folder` says of a model's kernels to a new log.

    Only kernels that no rule knows take what it says. The arguments are as for `export_metaschedule`;
    `threads` are those that the database's trials ran on, for it does not say so.

    Raises:
        KilnError: one of its kinds; nothing was written then.
    """
    device, count = _cpu(target), choose_threads(threads)
    tuned, _ = read_tuned(device, count)
    tasks, laid = _tasks(model, example_inputs, device, tuned, inputs, quantize, calibrate)
    with stage("import database"):
        moved = from_database(Path(folder), tasks, laid, facts_of(device, count, Session("")))
        _say(moved)
    if not moved.records:
        raise InputError(f"'{folder}' holds nothing of use for this model, so no log was written")
    write_log(Path(log), moved.records)
    return moved


def _cpu(target: str | Path | Target) -> Target:
    device = load_target(target)
    if device.kind != "cpu":
        raise UsageError(
            f"expected a CPU, got '{device.name}': kernels of {device.kind} have no decisions yet"
        )
    return device


def _tasks(
    model: Any,
    example_inputs: Any,
    device: Target,
    tuned: Tuned,
    inputs: Sequence[str] | None,
    quantize: str | Path | Recipe | None,
    calibrate: Any,
) -> tuple[list[Task], Target]:
    """Return the kernels that a compilation would tune, and the device with its vectors chosen."""
    with stage("import"):
        subject = frontend.load(model, example_inputs, inputs=inputs)
    if quantize is not None:
        with private_folder() as work:
            request = make_request(quantize, calibrate, check=False)
            subject = compress(subject, request, host_builder(work / "host")).model
    with stage("optimize"):
        laid = laid_out(subject.mod, device, tuned.choose)
        mod, _ = optimize(subject.mod, laid, choose=tuned.choose)
    return find_tasks(mod, laid), laid


def _say(moved: Moved) -> None:
    for reason, count in moved.skipped.items():
        note(f"skipped {count} {reason}")
