"""The verbs of `kiln` and the options that all of them share."""

from __future__ import annotations

from typing import Annotated

import typer

from compiler.cli.bench import bench
from compiler.cli.board import app as board
from compiler.cli.compile import compile_
from compiler.cli.deploy import deploy, fleet
from compiler.cli.diff import diff
from compiler.cli.info import info
from compiler.cli.logs import app as logs
from compiler.cli.quantize import quantize
from compiler.cli.run import run
from compiler.cli.targets import app as targets
from compiler.cli.tune import tune
from compiler.cli.unpack import unpack
from compiler.cli.verify import verify

app = typer.Typer(
    name="kiln",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command("compile")(compile_)
app.command("quantize")(quantize)
app.command("run")(run)
app.command("verify")(verify)
app.command("info")(info)
app.command("diff")(diff)
app.command("unpack")(unpack)
app.command("deploy")(deploy)
app.command("fleet")(fleet)
app.add_typer(targets, name="targets")
app.command("bench")(bench)
app.command("tune")(tune)
app.add_typer(logs, name="logs")
app.add_typer(board, name="board")


def _show_version(wanted: bool) -> None:
    if wanted:
        from compiler import __version__

        typer.echo(f"kiln {__version__}")
        raise typer.Exit


@app.callback()
def kiln(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks, and what TVM and torch say while they work.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress, only results and errors.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show Kiln's version and exit."
        ),
    ] = False,
) -> None:
    """Compile PyTorch models for CPUs, GPUs and edge boards.

    For example:

    - `kiln compile torchvision.models:resnet18 --target host -o resnet18.kiln`
    - `kiln run resnet18.kiln --input x.npz --output y.npz`
    - `kiln verify resnet18.kiln`

    Exit codes: 0 done, 1 a defect of Kiln, 2 something that you can mend, 130 interrupted.
    """
    # `compiler.cli.main` reads these before any verb runs, wherever they stand on the command line.
