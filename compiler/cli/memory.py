"""What ``kiln info --memory`` prints: code, weights, arena, what each step needs, what could be saved."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from compiler.cli.columns import Column
from compiler.support.errors import BundleError

if TYPE_CHECKING:
    from compiler.bundle import AotInfo, Manifest, StepInfo

_STEPS = 12
"""Steps that the table shows: those where most is alive."""

_COLUMNS = (
    Column("alive KiB", number=True),
    Column("of arena", number=True, rank=1),
    Column("step", number=True),
    Column("makes"),
    Column("layer", least=12, keeps_end=True),
    Column("kernel", least=12, rank=2),
)


def show_memory(manifest: Manifest) -> None:
    """Print it.

    Raises:
        BundleError: the bundle's library allocates as it runs, so nothing is known.
    """
    from rich.console import Console

    from compiler.cli.columns import show

    aot = manifest.aot
    if aot is None:
        raise BundleError(
            "the library is for TVM's runtime, which allocates as it runs: compile with --kind aot to know"
        )
    console = Console(highlight=False, soft_wrap=True)
    for line in _sums(manifest, aot):
        console.print(line, markup=False)
    worst = sorted(enumerate(aot.steps), key=lambda each: -each[1].arena)[:_STEPS]
    console.print()
    show(console, _COLUMNS, [_row(number, step, aot) for number, step in sorted(worst)])
    console.print()
    for line in _savings(manifest, aot):
        console.print(line, markup=False)


def _sums(manifest: Manifest, aot: AotInfo) -> list[str]:
    tensors = (*manifest.signature.inputs, *manifest.signature.outputs)
    crossing = sum(
        _bytes(tuple(dim for dim in spec.shape if isinstance(dim, int)), spec.dtype) for spec in tensors
    )
    above = aot.arena_bytes / aot.arena_least - 1 if aot.arena_least else 0.0
    where = f"mapped from {aot.weights}" if aot.weights else "inside of the library"
    return [
        f"code     {_kib(aot.code_bytes)}",
        f"weights  {_kib(aot.weight_bytes)} ({where}, shared by all instances)",
        f"arena    {_kib(aot.arena_bytes)} an instance, {above:.1%} above what any plan needs",
        f"scratch  {_kib(aot.scratch_bytes)} for each thread but the first",
        f"in, out  {_kib(crossing)}, the caller's own",
    ]


def _savings(manifest: Manifest, aot: AotInfo) -> list[str]:
    """Say what would make it smaller, most first."""
    found = []
    if manifest.quantization is None:
        found.append((aot.weight_bytes * 3 // 4, "weights of one byte in place of four (--quantize int8)"))
    peak = max((step.arena for step in aot.steps), default=0)
    below = sorted({step.arena for step in aot.steps})[-2:-1]
    if below and peak > below[0]:
        number = next(n for n, step in enumerate(aot.steps, 1) if step.arena == peak)
        found.append(
            (peak - below[0], f"step {number} alone needs the most: the next needs {_kib(below[0])}")
        )
    if aot.arena_bytes > aot.arena_least:
        found.append((aot.arena_bytes - aot.arena_least, "gaps in the plan of the arena"))
    return [f"could save {_kib(size)}: {text}" for size, text in sorted(found, reverse=True)]


def _row(number: int, step: StepInfo, aot: AotInfo) -> tuple[str, ...]:
    makes = ", ".join(f"{'x'.join(map(str, shape)) or 'scalar'} {dtype}" for shape, dtype in step.outputs)
    part = step.arena / aot.arena_bytes if aot.arena_bytes else 0.0
    return f"{step.arena / 1024:,.0f}", f"{part:.0%}", str(number + 1), makes, step.layer, step.kernel


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    from compiler.support.dtypes import numpy_dtype

    return int(prod(shape) * numpy_dtype(dtype).itemsize)


def _kib(size: int) -> str:
    return f"{size / 1024:,.1f} KiB"
