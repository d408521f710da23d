"""The driver's fourth page: where a graph can be made in several ways, these are measured before the tuning.

vectors       the whole network, built both ways
convolutions  kernels of one convolution each, tuned for a few trials
residuals     the whole network again, as it was chosen so far

What comes of it are records of the rule ``choice``; by these `compiler.schedule.tuned.Tuned` chooses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compiler import frontend
from compiler.build.jit import jit
from compiler.deploy import Session as DeviceSession
from compiler.deploy import use_threads
from compiler.deploy.benchmark import cpu_name
from compiler.deploy.peak import interleaved_seconds
from compiler.driver import build_module, constant_bytes
from compiler.frontend.random_inputs import fresh_inputs
from compiler.passes import optimize
from compiler.passes.choices import ConvolutionSite, Site, fuses_residuals, laid_out
from compiler.schedule.apply import GENERIC
from compiler.schedule.log import Log, Logged, read_log
from compiler.schedule.records import CHOICE, Record, identity
from compiler.schedule.space import to_plain
from compiler.schedule.tuned import Tuned, other_logs, tuned_for
from compiler.support.progress import note
from compiler.target import Target
from compiler.tune.budget import Budget
from compiler.tune.kernel import kernel_of
from compiler.tune.session import Session
from compiler.tune.task import Task, find_tasks
from compiler.tune.trial import Tools
from compiler.tune.tuner import Facts, Listener, Measures, Tuner, now, recall
from compiler.tune.workers import Workers

TRIALS = 16
"""Of each kernel that a choice between convolutions is made by."""

SECONDS = 2.0
"""How long each way of making the whole network is measured."""

_SHARE, _LONG = 0.25, 300.0
"""The part of a session that convolutions may take; the seconds where a session has no end."""

_LEAST_TRIALS, _LEAST_SECONDS = 1000, 300.0
"""The shortest session in which choices are measured: the whole network is built several times for them."""


@dataclass(eq=False)
class Chooser:
    """Measures the choices that a network has.

    Attributes:
        mod: the network as imported, quantized where it is to be.
        target: the device, which is this machine.
        facts: of the session.
        log: where records go.
        records: what all logs hold, and what is found here.
        run: returns what runs a built library once.
        measures: returns who measures kernels of tasks, and their numbers there, of the device it is given.
        folder: for libraries.
    """

    mod: Any
    target: Target
    facts: Facts
    log: Log
    records: list[Record]
    run: Callable[[Path], Callable[[], Any]]
    measures: Callable[[Sequence[Task], Target], tuple[Measures, dict[Task, int]]]
    folder: Path
    spent: float = 0.0

    def __post_init__(self) -> None:
        self._began = time.monotonic() - self.spent

    def elapsed(self) -> float:
        """Return the seconds of the session so far."""
        return time.monotonic() - self._began

    @property
    def tuned(self) -> Tuned:
        """What is known so far."""
        return tuned_for(self.target, self.facts.threads, Logged(tuple(self.records), ()))

    def measure(self, listener: Listener, seconds: float) -> None:
        """Measure all choices that no log knows; those between convolutions for at most so many seconds."""
        laid_out(self.mod, self.target, self._whole_network)
        self._convolutions(listener, seconds)
        fuses_residuals(self.mod, self._whole_network)

    def _known(self, site: Site, options: Sequence[Any]) -> bool:
        key = (site.name, self.facts.device, self.facts.threads)
        tried = [record.decisions for record in self.records if record.key == key]
        return all(to_plain(option) in tried for option in options)

    def _whole_network(self, site: Site, default: Any, options: Sequence[Any]) -> Any:
        """Build the network with each option, and measure them in turns."""
        if self._known(site, options):
            return self.tuned.choose(site, default, options)
        runs = []
        for number, option in enumerate(options):
            choose = _with(site, option, self.tuned)
            built, _ = build_module(
                self.mod, self.target, self.folder / f"{site.name}-{number}", choose=choose
            )
            runs.append(self.run(built.library))
        self._keep(site, default, dict(zip(options, interleaved_seconds(runs, SECONDS), strict=True)))
        return self.tuned.choose(site, default, options)

    def _convolutions(self, listener: Listener, seconds: float) -> None:
        """Tune kernels of single convolutions a little, made in each way."""
        device = laid_out(self.mod, self.target, self.tuned.choose)
        ways: dict[tuple[ConvolutionSite, Any], list[Task]] = {}
        defaults: dict[ConvolutionSite, Any] = {}
        for site, (default, options) in _convolution_sites(self.mod, device).items():
            if not self._known(site, options):
                defaults[site] = default
                for option in options:
                    choose = _with(site, option, self.tuned)
                    mod, _ = optimize(site.module(), device, choose=choose)
                    # What a lone convolution is packed and unpacked by is in no network.
                    ways[site, option] = [e for e in find_tasks(mod, device) if e.rule not in GENERIC]
        tasks = [task for each in ways.values() for task in each]
        if not tasks:
            return
        recall(tasks, self.records, self.facts)
        workers, numbers = self.measures(tasks, device)
        spent = self.elapsed()
        budget = Budget(TRIALS * len(tasks), spent + seconds)
        Tuner(tasks, numbers, workers, _Aside(self), self.facts, budget, listener, spent=spent).run()
        for site, default in defaults.items():
            totals = {way: sum(each.time for each in ways[at, way]) for at, way in ways if at == site}
            self._keep(site, default, {way: total for way, total in totals.items() if total < float("inf")})

    def _keep(self, site: Site, default: Any, seconds: dict[Any, float]) -> None:
        """Write down what was measured of each option."""
        for option, total in seconds.items():
            self.append(self._record(site, option, total, option == default))
        said = ", ".join(f"{_words(option)} {total * 1e3:.3f} ms" for option, total in seconds.items())
        note(f"{site.name}: {said}")

    def _record(self, site: Site, option: Any, seconds: float, default: bool) -> Record:
        return self.facts.record(
            workload=site.name,
            rule=CHOICE,
            decisions=to_plain(option),
            seconds=(seconds,),
            default=default,
            calls=0,
            at=now(),
            spent=round(self.elapsed(), 3),
        )

    def append(self, record: Record) -> None:
        """Write a record down, and know it."""
        self.log.append(record)
        self.records.append(record)


def measure_choices(
    model: frontend.Model,
    target: Target,
    path: Path,
    session: Session,
    folder: Path,
    *,
    threads: int,
    builders: int,
) -> Tuned:
    """Measure what no log of the device knows of the choices of `model`; return all that is known then.

    Args:
        model: as imported, quantized where it is to be.
        target: the device, which is this machine.
        path: of the log.
        session: a quarter of its seconds may go into kernels of single convolutions; a short one measures
            nothing here.
        folder: for libraries.
        threads: that kernels run on.
        builders: processes that build candidates.

    Raises:
        UsageError: the log cannot be written.
    """
    facts = facts_of(target, threads, session)
    arrays = fresh_inputs(model, 0)

    def run(library: Path) -> Callable[[], Any]:
        loaded = DeviceSession(library, model.signature, threads=threads)
        return lambda: loaded.run_flat(arrays)

    with Log(path) as log, ExitStack() as stack:

        def measures(tasks: Sequence[Task], device: Target) -> tuple[Measures, dict[Task, int]]:
            workers = stack.enter_context(Workers(builders, device, Tools(jit, use_threads), threads))
            weights = constant_bytes(model.mod)
            return workers, {task: workers.add(kernel_of(task, weights, device)) for task in tasks}

        records = [*other_logs(target, path).records, *read_log(path).records]
        _, spent = recall((), records, facts)
        chooser = Chooser(model.mod, target, facts, log, records, run, measures, folder, spent)
        budget = session.budget(spent)
        left = _LONG if budget.seconds is None else budget.seconds - spent
        if budget.has(_LEAST_TRIALS, _LEAST_SECONDS):
            chooser.measure(Quiet(), left * _SHARE)
        return chooser.tuned


def facts_of(device: Target, threads: int, session: Session) -> Facts:
    """Return what all records of a session on this machine say."""
    versions = version("kiln-compiler"), version("apache-tvm")
    return Facts(identity(device), threads, cpu_name(), *versions, session.name)


class Quiet:
    """The listener of a library."""

    def started(self, tuner: Tuner) -> None:
        """Ignore it."""

    def phase(self, name: str) -> None:
        """Ignore it."""

    def saw(self, task: Task, record: Record) -> None:
        """Ignore it."""


class _Aside:
    """The log of kernels that are measured for a choice, and are in no network."""

    def __init__(self, chooser: Chooser) -> None:
        self.path, self._chooser = chooser.log.path, chooser

    def append(self, record: Record) -> None:
        """Write a record down."""
        self._chooser.append(replace(record, calls=0))


def _with(site: Site, option: Any, tuned: Tuned) -> Any:
    """Return what chooses `option` at `site`, and elsewhere what was measured."""

    def choose(at: Site, default: Any, options: Sequence[Any]) -> Any:
        return option if at.name == site.name else tuned.choose(at, default, options)

    return choose


def _convolution_sites(mod: Any, target: Target) -> dict[ConvolutionSite, tuple[Any, Sequence[Any]]]:
    """Return the convolutions of `mod` that can be made in several ways: the default, and all ways."""
    found: dict[ConvolutionSite, tuple[Any, Sequence[Any]]] = {}

    def listen(site: Site, default: Any, options: Sequence[Any]) -> Any:
        if isinstance(site, ConvolutionSite):
            found[site] = default, options
        return default

    optimize(mod, target, choose=listen)
    return found


def _words(option: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in to_plain(option).items())
