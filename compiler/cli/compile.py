"""kiln compile: a model becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compiler.cli.options import (
    Calibrate,
    Check,
    Evaluate,
    Inputs,
    Logs,
    MaxDrop,
    ModelText,
    Report,
    Seed,
    State,
    Statistics,
    Transform,
)


def compile_(
    model: ModelText,
    target: Annotated[
        str, typer.Option("--target", "-t", help="A name from `kiln targets`, or a descriptor (.yaml).")
    ] = "host",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The bundle to write; by default MODEL-TARGET.kiln in this folder."
        ),
    ] = None,
    inputs: Inputs = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Threads to run on; by default one per physical core of the machine that runs it."),
    ] = None,
    check: Check = True,
    seed: Seed = 0,
    dump_ir: Annotated[
        Path | None, typer.Option("--dump-ir", help="Write the IR after each pass, numbered, to this folder.")
    ] = None,
    state: State = "refuse",
    quantize: Annotated[
        str | None,
        typer.Option("--quantize", help="A scheme such as int8 or int8-tensor, or a recipe (.yaml)."),
    ] = None,
    calibrate: Calibrate = None,
    transform: Transform = None,
    max_drop: MaxDrop = None,
    evaluate: Evaluate = None,
    statistics: Statistics = None,
    report: Report = None,
    logs: Logs = None,
    kind: Annotated[
        str,
        typer.Option(
            help="aot: a library that needs nothing but libc; tvm: one for TVM's runtime; auto: aot where "
            "that can be (CPUs under Linux, known shapes)."
        ),
    ] = "auto",
    name: Annotated[
        str | None,
        typer.Option(help="Of an aot library: the prefix of its names in C; by default the model's."),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="Of an aot library: in a `file` beside it, or `inside`.")
    ] = "file",
    with_runtime: Annotated[
        bool,
        typer.Option("--with-runtime", help="Of a tvm library: add TVM's runtime for the target (by pip)."),
    ] = False,
) -> None:
    """Compile a model into one file that runs on the target.

    For example:

    - `kiln compile torchvision.models:resnet18 --target host -o resnet18.kiln`
    - `kiln compile net.onnx --target rpi4 --input image=Nx3x224x224`
    - `kiln compile mynet.py:make --input x=1x16:float32 --dump-ir ir/`
    - `kiln compile mynet.py:make --quantize int8 --calibrate data.npz --max-drop 0.5`
    """
    from compiler.driver import compile as run

    path = output or Path(default_name(model, target))
    run(
        model,
        target=target,
        output=path,
        threads=threads,
        check=check,
        seed=seed,
        dump_ir=dump_ir,
        inputs=inputs or None,
        state=state,
        quantize=quantize,
        calibrate=calibrate,
        transform=transform,
        max_drop=max_drop,
        evaluate=evaluate,
        statistics=statistics,
        report=report,
        logs=logs,
        kind=kind,
        name=name,
        weights=weights,
        with_runtime=with_runtime,
    )
    typer.echo(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")


def default_name(model: str, target: str) -> str:
    """Return the bundle's file name for a model and a target: ``resnet18-host.kiln``."""
    return file_name(model, f"-{Path(target).stem if target.endswith(('.yaml', '.yml')) else target}.kiln")


def file_name(model: str, ending: str) -> str:
    """Return the name of a file made of `model`: its factory's name, or its own, and `ending`."""
    from compiler.support.files import safe_name

    path, _, factory = model.rpartition(":")
    return safe_name((factory if path else Path(model).stem) + ending)
