"""kiln tune: find the fastest schedules of a model's kernels on this machine."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compiler.cli.options import Calibrate, Inputs, ModelText
from compiler.cli.tune_result import Report, show_result, write_what_there_is
from compiler.support.errors import KilnError

if TYPE_CHECKING:
    from compiler.cli.tune_view import TuneView


def tune(
    model: ModelText,
    target: Annotated[
        str, typer.Option("--target", "-t", help="A name from `kiln targets`, or a descriptor (.yaml).")
    ] = "host",
    minutes: Annotated[float | None, typer.Option(help="Tune for so long; by default 20 minutes.")] = None,
    hours: Annotated[float | None, typer.Option(help="The same in hours.")] = None,
    trials: Annotated[int | None, typer.Option(help="The most trials.")] = None,
    until: Annotated[str | None, typer.Option(help="Tune until the clock shows this, such as 07:00.")] = None,
    logs: Annotated[
        Path | None,
        typer.Option("--logs", help="The folder of the logs; by default your own, which compile reads."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The name of the log; by default the model's.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads that kernels run on; by default one per physical core.")
    ] = None,
    builders: Annotated[
        int | None, typer.Option(help="Processes that build candidates; by default one per physical core.")
    ] = None,
    inputs: Inputs = None,
    quantize: Annotated[
        str | None, typer.Option("--quantize", help="Tune the kernels of the model quantized so.")
    ] = None,
    calibrate: Calibrate = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Peers of `kiln bench`, joined by commas: the fastest is measured before, and shown beside."
        ),
    ] = None,
    peer_ms: Annotated[
        float | None, typer.Option("--peer-ms", help="Milliseconds that a peer takes, in place of measuring.")
    ] = None,
    similar: Annotated[
        list[str] | None,
        typer.Option(
            "--similar",
            help="A target, a log or a folder of logs, of a similar device: what is best there is tried "
            "first. May be given several times.",
        ),
    ] = None,
    board: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Measure on boards of this key; by default the descriptor's."),
    ] = None,
    tracker: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Measure on boards that this tracker knows: see `kiln board`."
        ),
    ] = None,
    ssh: Annotated[
        str | None, typer.Option(metavar="USER@HOST", help="Reach tracker and boards through ssh.")
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(metavar="dask://HOST:PORT", help="Build candidates on a cluster, not here."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a page about the tuning to this file (.html) at the end.")
    ] = None,
) -> None:
    """Measure schedules of a model's kernels, and log the fastest, which `kiln compile` then uses.

    Every trial is on the disk before the next begins: stop it (Ctrl-C) or kill it at any moment, run the same
    command again, and it goes on with what is left of its time.

    For example:

    - `kiln tune torchvision.models:resnet18 --minutes 20`
    - `kiln tune net.onnx --until 07:00`
    - `kiln tune net.onnx --target rpi4 --tracker 127.0.0.1:9190`, measured on boards
    - `kiln tune mynet.py:make --quantize int8 --calibrate data.npz --trials 500`
    """
    from compiler.cli.compile import file_name
    from compiler.cli.signals import Stopped
    from compiler.cli.tune_peer import peer_time
    from compiler.driver_tune import tunable, wanted_session
    from compiler.driver_tune import tune as run
    from compiler.support.errors import UsageError

    if minutes is not None and hours is not None:
        raise UsageError("give minutes or hours, not both")
    seconds = minutes * 60 if minutes is not None else hours * 3600 if hours is not None else None
    # All that can be wrong is found out before anything is measured.
    boards = (board, tracker, ssh) != (None, None, None)
    tunable(target, boards)
    if boards and against is not None:
        raise UsageError("--against measures peers on this machine, not on boards: give --peer-ms")
    wanted_session(trials, seconds, until)
    made = None if report is None else Report(report, target, threads)
    with _view() as view:
        peer = view.peer = peer_time(
            model, against, peer_ms, inputs=inputs, threads=threads, quantize=quantize, calibrate=calibrate
        )
        try:
            result = run(
                model,
                target=target,
                logs=logs,
                name=name or file_name(model, f"-{quantize}" if quantize else ""),
                trials=trials,
                seconds=seconds,
                until=until,
                threads=threads,
                builders=builders,
                inputs=inputs or None,
                quantize=quantize,
                calibrate=calibrate,
                similar=similar or (),
                board=board,
                tracker=tracker,
                ssh=ssh,
                workers=workers,
                listener=view,
            )
        except (Stopped, KilnError):
            if view.tuner is not None:
                write_what_there_is(view.tuner, made, peer)
            raise
    show_result(result, peer)
    if result.estimated:
        typer.echo("the times of the network are estimates: sums of those kernels")
    if made is not None and view.tuner is not None:
        made.write(view.tuner, peer)


@contextmanager
def _view() -> Iterator[TuneView]:
    """Show how it goes in place of the usual progress, if any is wanted."""
    from compiler.cli.console import Console
    from compiler.cli.tune_view import TuneView
    from compiler.support.progress import watcher, watching

    usual = watcher()
    if not isinstance(usual, Console):
        yield TuneView(io.StringIO(), live=False)
        return
    view = TuneView(sys.stderr, live=usual.live)
    with view, watching(view):
        yield view
