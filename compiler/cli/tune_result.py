"""What a tuning leaves: the table of its kernels, the page about it, also where it was ended."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from compiler.cli.columns import Column, show
from compiler.cli.tune_table import task_columns, task_row
from compiler.support.errors import KilnError

if TYPE_CHECKING:
    from compiler.driver_tune import TuneResult
    from compiler.tune.beside import PeerTime
    from compiler.tune.tuner import Tuner

_COLUMNS = (*task_columns("tuned us"), Column("decisions", rank=4, least=16))


def show_result(result: TuneResult, peer: PeerTime | None) -> None:
    """Print the kernels that were tuned, the longest first, and what the network takes now."""
    from rich.console import Console

    from compiler.tune.page import words

    rows = [
        (
            *task_row(task),
            "default" if task.best.default else words(task.best.decisions),
        )
        for task in sorted(result.tasks, key=lambda each: -each.total)
        if task.first is not None and task.best is not None
    ]
    show(Console(highlight=False), _COLUMNS, rows)
    compared = "" if peer is None else f", {result.tuned / peer.seconds:.3f} of {peer}"
    typer.echo(
        f"{result.untuned * 1e3:.3f} ms untuned, {result.tuned * 1e3:.3f} ms tuned "
        f"({result.tuned / result.untuned:.3f}){compared}; {result.trials} trials in {result.spent:.0f} s, "
        f"{result.searching / max(result.spent, 1e-9):.0%} of it search"
    )
    typer.echo(f"records: {result.log}")


class Report:
    """The page that was asked for.

    What the machine can do at most is measured before the tuning, while nothing else runs: it is ready when
    the tuning is ended by a signal.
    """

    def __init__(self, path: Path, target: str, threads: int | None) -> None:
        """Find out whether the page can be drawn and written.

        Raises:
            KilnError: it cannot.
        """
        from compiler.deploy import choose_threads, why_not_run
        from compiler.deploy.peak import measure_byte_peak, measure_peak
        from compiler.support.files import check_writable
        from compiler.support.pages import require_plotly
        from compiler.support.progress import stage
        from compiler.target import load
        from compiler.tune.beside import Peaks

        require_plotly()
        check_writable(path)
        self._path, self._target = path, load(target)
        self._peaks: Peaks | None = None
        if why_not_run(self._target) is None:
            with stage("peak"):
                count = choose_threads(threads)
                self._peaks = Peaks(measure_peak(count).gflops * 1e9, measure_byte_peak(count) * 1e9)

    def write(self, tuner: Tuner, peer: PeerTime | None) -> None:
        """Write the page about what `tuner` logged.

        Raises:
            KilnError: it cannot be written, or there is nothing to write.
        """
        from compiler.cli.logs import write_report
        from compiler.tune.beside import Beside, peaks, sources

        reached = {} if self._peaks is None else peaks(tuner.tasks, self._peaks)
        calls = {task.workload: task.calls for task in tuner.tasks}
        beside = Beside(sources(tuner.tasks, self._target), calls, reached, peer, tuner.rest)
        write_report([tuner.log.path], self._path, beside)


def write_what_there_is(tuner: Tuner, report: Report | None, peer: PeerTime | None) -> None:
    """Write the page of a tuning that was ended, if one was asked for, and say how to go on."""
    from compiler.cli.signals import finishing

    print(
        f"{tuner.trials} trials are in {tuner.log.path}; the same command goes on from there",
        file=sys.stderr,
        flush=True,
    )
    if report is None:
        return
    with finishing(), contextlib.suppress(KilnError):  # what ended the tuning is what has to be told
        report.write(tuner, peer)
