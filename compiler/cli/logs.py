"""kiln logs: look at tuning logs, check them, make several one, and leave out what is slow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compiler.cli.logs_metaschedule import export, import_

if TYPE_CHECKING:
    from compiler.cli.columns import Column
    from compiler.tune.beside import Beside

app = typer.Typer(
    help="Look after tuning logs.\n\n"
    "For example: `kiln logs list`, or `kiln logs compact net.jsonl --best 3 -o small.jsonl`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

app.command("export")(export)
app.command("import")(import_)

Logs = Annotated[
    list[Path] | None, typer.Argument(help="Logs, or folders of them; by default your own.", metavar="LOGS")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="The log to write.")]


@app.command("list")
def list_(logs: Logs = None) -> None:
    """Show what logs hold: devices, kernels, trials.

    For example: `kiln logs list tuning_logs/`
    """
    from rich.console import Console

    from compiler.cli.columns import show
    from compiler.schedule.log import log_files, read_log
    from compiler.schedule.log_tools import overviews

    rows = []
    for path in log_files(_paths(logs)):
        for each in overviews(read_log(path).records):
            numbers = map(str, (each.threads, each.workloads, each.trials, each.failed))
            rows.append((str(path), each.device.split("#")[0], *numbers, each.last))
    show(Console(highlight=False), _columns(), rows)


def _columns() -> tuple[Column, ...]:
    from compiler.cli.columns import Column

    return (
        Column("log", least=16, keeps_end=True),
        Column("device", rank=2, least=16),
        Column("threads", rank=4, number=True),
        Column("kernels", rank=1, number=True),
        Column("trials", number=True),
        Column("failed", rank=3, number=True),
        Column("last", rank=5),
    )


@app.command("verify")
def verify(logs: Logs = None) -> None:
    """Check every line; exit code 2 if one is damaged or no record.

    For example: `kiln logs verify resnet18.jsonl`
    """
    from compiler.schedule.log import read_logs
    from compiler.support.errors import InputError

    found = read_logs(_paths(logs))
    for problem in found.problems:
        typer.echo(str(problem))
    if found.problems:
        raise InputError(f"{len(found.problems)} lines are no records, {len(found.records)} are")
    typer.echo(f"{len(found.records)} records, all lines are sound")


@app.command("merge")
def merge(logs: Logs, output: Output) -> None:
    """Make one log of several; a record that is in two of them is kept once.

    For example: `kiln logs merge monday.jsonl tuesday.jsonl -o week.jsonl`
    """
    from compiler.schedule.log import read_logs, write_log
    from compiler.schedule.log_tools import merged

    records = merged(read_logs(_paths(logs)).records)
    write_log(output, records)
    typer.echo(f"wrote {output} ({len(records)} records)")


@app.command("compact")
def compact(
    logs: Logs,
    output: Output,
    best: Annotated[int, typer.Option(min=1, help="How many of each kernel to keep.")] = 3,
) -> None:
    """Keep the fastest records of each kernel, and the default's.

    For example: `kiln logs compact resnet18.jsonl --best 3 -o small.jsonl`
    """
    from compiler.schedule.log import read_logs, write_log
    from compiler.schedule.log_tools import compacted

    before = read_logs(_paths(logs)).records
    records = compacted(before, best)
    write_log(output, records)
    typer.echo(f"wrote {output} ({len(records)} of {len(before)} records)")


@app.command("report")
def report(
    logs: Logs = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("tuning.html"),
) -> None:
    """Write a page about a tuning, also while it runs: times over time, and the best of each kernel.

    For example: `kiln logs report resnet18.jsonl -o resnet18.html`
    """
    write_report(_paths(logs), output)


def write_report(paths: list[Path], output: Path, beside: Beside | None = None) -> None:
    """Write a page about what logs hold of the device and threads of their last record, and `beside` them.

    Raises:
        KilnError: a log cannot be read, the page cannot be written, or there is nothing to write.
    """
    from compiler.schedule.log import log_files, read_logs
    from compiler.tune.page import write_page

    records = read_logs(paths).records
    same = [
        each for each in records if (each.device, each.threads) == (records[-1].device, records[-1].threads)
    ]
    write_page(same, ", ".join(path.stem for path in log_files(paths)), output, beside)
    typer.echo(f"wrote {output}")


def _paths(logs: list[Path] | None) -> list[Path]:
    from compiler.schedule.tuned import user_folder

    if logs:
        return logs
    return [user_folder()] if user_folder().is_dir() else []
