"""kiln run: a bundle's outputs for inputs from files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compiler.support.without_torch import without_torch


def run(
    bundle: Annotated[Path, typer.Argument(help="The bundle (.kiln).")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="A .npz file with all inputs by name; or NAME=FILE.npy, once an input; or FILE.npy for a "
            "single one.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the outputs to this .npz file, by name; else summarize them."
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Threads to run on; by default what the bundle says, else all physical cores."),
    ] = None,
) -> None:
    """Run a bundle on this machine.

    bfloat16 tensors are read from float32 arrays and written as such.

    For example:

    - `kiln run resnet18.kiln --input x.npz --output y.npz`
    - `kiln run resnet18.kiln --input x=image.npy --threads 2`
    """
    from compiler.bundle import read
    from compiler.cli.arrays import read_inputs, summarize, write_outputs
    from compiler.support.files import check_writable
    from compiler.support.progress import stage

    if output is not None:
        check_writable(output)
    feeds = read_inputs(inputs or [], read(bundle).manifest.signature)
    with without_torch():
        from compiler.deploy import load

        with stage("load"):
            session = load(bundle, threads)
        with stage("run"):
            outputs = session.run(feeds)
    if output is not None:
        write_outputs(output, outputs)
        typer.echo(f"wrote {output}: {', '.join(outputs)}")
        return
    for name, array in outputs.items():
        typer.echo(f"{name}: {summarize(array)}")
