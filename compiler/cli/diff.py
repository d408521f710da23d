"""kiln diff: the first layer of a compiled model that computes something else than PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compiler.cli.columns import Column
from compiler.support.errors import CheckError

if TYPE_CHECKING:
    from compiler.deploy.layers import LayerDifference

_COLUMNS = (
    Column("step", number=True),
    Column("error", number=True),
    Column(""),
    Column("layer", least=12, keeps_end=True),
    Column("kernel", least=12, rank=1),
)


def diff(
    bundle: Annotated[Path, typer.Argument(help="The bundle (.kiln), with an ahead-of-time library.")],
    model: Annotated[
        str | None, typer.Option(help="The model that it was made from; by default what the bundle says.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="As for `kiln run`; by default the golden inputs of the bundle."),
    ] = None,
    shapes: Annotated[
        list[str] | None, typer.Option("--shape", help="As --input of `kiln compile`, where that was needed.")
    ] = None,
    where: Annotated[
        str | None, typer.Option("--board", metavar="NAME|USER@HOST", help="Run on this board, over ssh.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="The port of the board's sshd.")] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0, help="Of each layer, as a part of its values' range: 0.001, or 0.1 if quantized."
        ),
    ] = None,
) -> None:
    """Compare a bundle with PyTorch layer by layer, and name the first layer beyond the tolerance.

    Layers that the compiler merged are compared by their last result. What is quantized is compared with the
    model in float.

    For example:

    - `kiln diff resnet18.kiln`
    - `kiln diff resnet18.kiln --input x.npz --board pi@raspberrypi.local`
    """
    from rich.console import Console

    from compiler.bundle import read
    from compiler.cli.arrays import read_inputs
    from compiler.cli.columns import show
    from compiler.cli.deploy import place_of
    from compiler.driver_diff import QUANTIZED_TOLERANCE, TOLERANCE
    from compiler.driver_diff import diff as run

    manifest = read(bundle).manifest
    feeds = read_inputs(inputs, manifest.signature) if inputs else None
    place = None if where is None else place_of(where, port)
    found = run(bundle, model=model, inputs=shapes or None, feeds=feeds, place=place)
    allowed = (
        tolerance if tolerance is not None else QUANTIZED_TOLERANCE if manifest.quantization else TOLERANCE
    )
    show(Console(highlight=False), _COLUMNS, [_row(each, allowed) for each in found])
    wrong = [each for each in found if each.error is not None and not each.error <= allowed]
    if wrong:
        first = wrong[0]
        raise CheckError(
            f"{first.layer} (step {first.step + 1}, {first.kernel}) is the first layer beyond the tolerance: "
            f"off by {first.error:.2g} of its range, {allowed:g} allowed; so are {len(wrong)} of {len(found)}"
        )
    typer.echo(f"{len(found)} layers are within {allowed:g} of their ranges")


def _row(each: LayerDifference, allowed: float) -> tuple[str, ...]:
    if each.error is None:
        return str(each.step + 1), "", f"not comparable: {each.why}", each.layer, each.kernel
    verdict = "" if each.error <= allowed else "BEYOND"
    kind = " levels" if each.levels else ""
    return str(each.step + 1), f"{each.error:.2g}", f"{verdict}{kind}".strip(), each.layer, each.kernel
