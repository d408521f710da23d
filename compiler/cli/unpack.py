"""kiln unpack: a bundle's files in a folder, to be linked or copied by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def unpack(
    bundle: Annotated[Path, typer.Argument(help="The bundle (.kiln).")],
    folder: Annotated[Path, typer.Argument(help="The folder to write to; it is made if it is not there.")],
) -> None:
    """Write a bundle's files to a folder: libraries, header, weights, runner, golden data, sources.

    For example:

    - `kiln unpack resnet18.kiln out/`, then `out/resnet18-run --verify`, and
      `cc app.c -Iout out/libresnet18.a -lm -pthread`
    """
    from compiler.bundle import read
    from compiler.support.files import atomic_path, make_folder
    from compiler.support.progress import stage

    opened = read(bundle)
    aot = opened.manifest.aot
    with stage("unpack"):
        for name, part in opened.manifest.parts.items():
            path = folder / name
            make_folder(path.parent)
            with atomic_path(path) as temporary:
                temporary.unlink()
                opened.extract(name, temporary)
            if aot is not None and name == aot.runner:
                path.chmod(path.stat().st_mode | 0o111)
            typer.echo(f"{part.size:>12,}  {path}")
