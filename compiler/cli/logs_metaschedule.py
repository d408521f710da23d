"""kiln logs export, kiln logs import: tuning logs and MetaSchedule's own database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compiler.cli.options import Calibrate, Inputs, ModelText

if TYPE_CHECKING:
    from compiler.tune.metaschedule import Moved

TargetText = Annotated[
    str, typer.Option("--target", "-t", help="A name from `kiln targets`, or a descriptor (.yaml).")
]
Threads = Annotated[
    int | None, typer.Option(help="Threads that the trials ran on; by default one per physical core.")
]
Quantize = Annotated[
    str | None, typer.Option("--quantize", help="Take the kernels of the model quantized so.")
]


def export(
    model: ModelText,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder of the database, which has none yet.")
    ],
    logs: Annotated[
        list[Path] | None,
        typer.Option("--logs", help="Logs, or folders of them, beside the shipped ones and your own."),
    ] = None,
    target: TargetText = "host",
    threads: Threads = None,
    inputs: Inputs = None,
    quantize: Quantize = None,
    calibrate: Calibrate = None,
) -> None:
    """Write the best records of a model's kernels to a database of MetaSchedule's (TVM).

    For example: `kiln logs export torchvision.models:resnet18 -o database/`
    """
    from compiler.driver_logs import export_metaschedule

    moved = export_metaschedule(
        model,
        output,
        logs=logs or (),
        target=target,
        threads=threads,
        inputs=inputs or None,
        quantize=quantize,
        calibrate=calibrate,
    )
    _show(output, moved)


def import_(
    model: ModelText,
    database: Annotated[Path, typer.Argument(help="The folder of the database.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The log to write.")],
    target: TargetText = "host",
    threads: Threads = None,
    inputs: Inputs = None,
    quantize: Quantize = None,
    calibrate: Calibrate = None,
) -> None:
    """Write what a database of MetaSchedule's says of a model's kernels to a log.

    Only kernels that no schedule rule knows take it: the decisions of a rule are not in it.

    For example: `kiln logs import torchvision.models:vit_b_16 database/ -o vit.jsonl`
    """
    from compiler.driver_logs import import_metaschedule

    moved = import_metaschedule(
        model,
        database,
        output,
        target=target,
        threads=threads,
        inputs=inputs or None,
        quantize=quantize,
        calibrate=calibrate,
    )
    _show(output, moved)


def _show(output: Path, moved: Moved) -> None:
    skipped = "".join(f"; skipped {count} {reason}" for reason, count in moved.skipped.items())
    typer.echo(f"wrote {output} ({len(moved.records)} records{skipped})")
