"""kiln verify: whether a bundle is whole and computes here what it should."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compiler.support.without_torch import without_torch


def verify(
    bundle: Annotated[Path, typer.Argument(help="The bundle (.kiln).")],
    threads: Annotated[
        int | None,
        typer.Option(help="Threads to run on; by default what the bundle says, else all physical cores."),
    ] = None,
) -> None:
    """Check every part's hash, recompute the golden outputs on this machine and say what differs.

    For example:

    - `kiln verify resnet18.kiln`
    """
    from compiler.support.errors import BundleError
    from compiler.support.progress import stage

    with without_torch(), stage("verify"):
        from compiler.deploy.verification import verify as recompute

        reports = recompute(bundle, threads)
    for report in reports:
        word = "ok     " if report.passed else "DIFFERS"
        typer.echo(
            f"{word} {report.name}: error {report.error:.2g} of its range, {report.tolerance:g} allowed"
        )
    if wrong := [report.name for report in reports if not report.passed]:
        names = ", ".join(wrong)
        raise BundleError(f"'{bundle}' does not compute its golden outputs here: {names} differ")
    typer.echo(f"{bundle} is whole and computes its golden outputs")
