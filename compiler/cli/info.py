"""kiln info: what a bundle says about itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from compiler.bundle import Manifest
    from compiler.support.signature import TensorSpec


def info(
    bundle: Annotated[Path, typer.Argument(help="The bundle (.kiln).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole manifest as JSON.")] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Show what the library takes on a device, step by step.")
    ] = False,
) -> None:
    """Show a bundle's signature, target, versions, parts, passes, kernels and notes.

    The parts themselves are not read; `kiln verify` does.

    For example:

    - `kiln info resnet18.kiln`
    - `kiln info resnet18.kiln --memory`
    - `kiln info resnet18.kiln --json | jq .signature`
    """
    from compiler.bundle import read, to_json

    manifest = read(bundle).manifest
    if as_json:
        typer.echo(to_json(manifest), nl=False)
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if memory:
        from compiler.cli.memory import show_memory

        show_memory(manifest)
        return
    for line in _facts(manifest):
        console.print(line, markup=False)
    for title, columns, rows in _tables(manifest):
        if rows:
            console.print()
            console.print(_table(title, columns, rows))


def _facts(manifest: Manifest) -> list[str]:
    target, check, quantization = manifest.target, manifest.check, manifest.quantization
    arch = f", {target.arch}" if target.arch else ""
    torch = f", torch {manifest.torch}" if manifest.torch else ""
    aot = manifest.aot
    return [
        f"model    {manifest.model}",
        f"target   {target.name} ({target.kind}{arch}; {target.triple}, {target.cpu})",
        f"needs    {', '.join(target.features) or 'no CPU features'}",
        f"library  {f'{aot.library}, needs nothing but libc' if aot else 'for the runtime of TVM'}",
        f"made by  Kiln {manifest.kiln}, TVM {manifest.tvm}{torch}; bundle format {manifest.format}",
        f"threads  {manifest.threads or 'one per physical core'}",
        f"checked  {f'{check.summary} ({check.ran}; {check.tolerance:.3g} allowed)' if check else 'no'}",
        *(f"numbers  {text}" for text in (quantization.summary if quantization else ())),
        *(f"note     {note}" for note in manifest.notes),
    ]


def _kind(spec: TensorSpec) -> str:
    return spec.dtype if spec.levels is None else f"{spec.dtype}: {spec.levels}"


def _tables(manifest: Manifest) -> list[tuple[str, tuple[str, ...], Sequence[tuple[str, ...]]]]:
    signature = manifest.signature
    tensors = [
        (way, spec) for way, specs in (("in", signature.inputs), ("out", signature.outputs)) for spec in specs
    ]
    shapes = [
        (way, spec.name, "x".join(map(str, spec.shape)) or "scalar", _kind(spec)) for way, spec in tensors
    ]
    dims = [
        (name, str(low), "any" if high is None else str(high)) for name, (low, high) in signature.dims.items()
    ]
    rules = Counter((kernel.rule, kernel.origin) for kernel in manifest.kernels.values()).most_common()
    return [
        ("signature", ("", "name", "shape", "dtype"), shapes),
        ("symbolic dimensions", ("name", "least", "greatest"), dims),
        (
            "passes",
            ("pass", "seconds", "what it did"),
            [(p.name, f"{p.seconds:.2f}", p.summary) for p in manifest.passes],
        ),
        ("kernels", ("rule", "schedule", "kernels"), [(*kind, str(count)) for kind, count in rules]),
        (
            "parts",
            ("file", "bytes", "SHA-256"),
            [(n, f"{p.size:,}", p.sha256[:16]) for n, p in manifest.parts.items()],
        ),
    ]


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        numeric: Any = "right" if column in ("seconds", "kernels", "bytes", "least", "greatest") else "left"
        table.add_column(column, justify=numeric, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
