"""kiln quantize: a model becomes a quantized model, for any target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compiler.cli.options import (
    Calibrate,
    Check,
    Evaluate,
    Inputs,
    MaxDrop,
    ModelText,
    Seed,
    State,
    Statistics,
    Transform,
)
from compiler.cli.options import Report as ReportFile


def quantize(
    model: ModelText,
    scheme: Annotated[
        str, typer.Option("--scheme", "-s", help="A scheme such as int8 or int8-tensor, or a recipe (.yaml).")
    ] = "int8",
    calibrate: Calibrate = None,
    transform: Transform = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write; by default MODEL.kq in this folder."),
    ] = None,
    max_drop: MaxDrop = None,
    evaluate: Evaluate = None,
    statistics: Statistics = None,
    report: ReportFile = None,
    inputs: Inputs = None,
    check: Check = True,
    seed: Seed = 0,
    state: State = "refuse",
) -> None:
    """Quantize a model and save it before it is compiled for a target.

    For example:

    - `kiln quantize mynet.py:make --calibrate data.npz -o mynet.kq`
    - `kiln quantize mynet.py:make --calibrate photos/ --transform resize=256,crop=224 --report mynet.html`
    - `kiln compile mynet.kq --target rpi4`
    """
    from compiler.cli.compile import file_name
    from compiler.driver import quantize as run

    path = output or Path(file_name(model, ".kq"))
    run(
        model,
        scheme=scheme,
        calibrate=calibrate,
        transform=transform,
        max_drop=max_drop,
        evaluate=evaluate,
        statistics=statistics,
        output=path,
        report=report,
        check=check,
        seed=seed,
        inputs=inputs or None,
        state=state,
    )
    typer.echo(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
