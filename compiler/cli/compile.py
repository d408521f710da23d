"""kiln compile: a model becomes a bundle."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer


def compile_(
    model: Annotated[
        str, typer.Argument(help="package.module:factory, or a .pt2, .onnx or TorchScript file.")
    ],
    target: Annotated[
        str, typer.Option("--target", "-t", help="A name from `kiln targets`, or a descriptor (.yaml).")
    ] = "host",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The bundle to write; by default MODEL-TARGET.kiln in this folder."
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="An input where the model declares none: NAME=1x3x224x224:float32; a letter such as N for "
            "a dimension that may vary.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Threads to run on; by default one per physical core of the machine that runs it."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Compare the result with the original on random inputs."),
    ] = True,
    seed: Annotated[int, typer.Option(help="Seed of those inputs.")] = 0,
    dump_ir: Annotated[
        Path | None, typer.Option("--dump-ir", help="Write the IR after each pass, numbered, to this folder.")
    ] = None,
    state: Annotated[
        str,
        typer.Option(help="A model that changes its buffers: refuse it, or make its state explicit inputs."),
    ] = "refuse",
) -> None:
    """Compile a model into one file that runs on the target.

    For example:

    - `kiln compile torchvision.models:resnet18 --target host -o resnet18.kiln`
    - `kiln compile net.onnx --target rpi4 --input image=Nx3x224x224`
    - `kiln compile mynet.py:make --input x=1x16:float32 --dump-ir ir/`
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
    )
    typer.echo(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")


def default_name(model: str, target: str) -> str:
    """Return the bundle's file name for a model and a target: ``resnet18-host.kiln``."""
    path, _, factory = model.rpartition(":")
    stem = factory if path else Path(model).stem
    words = f"{stem}-{Path(target).stem if target.endswith(('.yaml', '.yml')) else target}"
    return re.sub(r"[^\w.+-]+", "_", words) + ".kiln"
