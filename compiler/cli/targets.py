"""kiln targets: what Kiln can compile for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from compiler.target import Target

app = typer.Typer(rich_markup_mode="markdown")


@app.callback(invoke_without_command=True)
def targets(context: typer.Context) -> None:
    """List the devices that Kiln compiles for, show one, or describe this machine.

    For example:

    - `kiln targets` lists all
    - `kiln targets show rpi4` prints a descriptor
    - `kiln targets detect -o board.yaml`, run on a board, describes it: `--target board.yaml`
    """
    if context.invoked_subcommand is None:
        _print_table()


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A target's name, or the path of a descriptor (.yaml).")],
) -> None:
    """Print a target's descriptor with everything it inherits, and the source of each number.

    For example:

    - `kiln targets show rpi4`
    - `kiln targets show ./myboard.yaml` also checks the file
    """
    from compiler.target import load
    from compiler.target_schema import dump

    typer.echo(dump(load(name)), nl=False)


@app.command()
def detect(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file instead of the screen.")
    ] = None,
) -> None:
    """Print this machine's descriptor, to be saved and used elsewhere with --target FILE.

    For example:

    - `kiln targets detect`
    - `kiln targets detect -o board.yaml`, then elsewhere `kiln compile MODEL --target board.yaml`
    """
    from compiler.support.files import atomic_path
    from compiler.target import HOST, load
    from compiler.target_schema import dump

    text = dump(load(HOST), named=False)
    if output is None:
        typer.echo(text, nl=False)
        return
    with atomic_path(output) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _print_table() -> None:
    from compiler.target import HOST, load, names
    from compiler.target_detect import detect as look
    from compiler.target_schema import validate

    rows: list[tuple[str, ...]] = [("name", "kind", "cpu", "cores", "vector", "description")]
    for name in names():
        if name == HOST:
            # LLVM's name of this CPU costs seconds, and is not what a list is for.
            rows.append(_row(validate(look(ask_llvm=False), "this machine"), cpu="detected"))
        else:
            target = load(name)
            rows.append(_row(target, cpu=target.cpu))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def _row(target: Target, cpu: str) -> tuple[str, ...]:
    arch = f" {target.accelerator.arch}" if target.accelerator else ""
    return (
        target.name,
        f"{target.kind}{arch}",
        cpu,
        str(target.cores),
        f"{target.vector.bits}x{target.vector.registers}",
        target.description,
    )
