"""The table of ``kiln bench --layers``: where the time of the compiled model goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from compiler.deploy.profile import Profile

_NUMBERS = ("ms", "share", "calls", "GFLOPS", "GB/s", "of peak", "lost ms")


_WIDTH = 200
"""Columns that the table may take: in a narrow terminal or a file, long lines beat folded names."""


def show_layers(profile: Profile) -> None:
    """Print the layers, worst offenders first, and what the kernels and the virtual machine take together."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, width=_WIDTH)
    console.print()
    console.print(layer_table(profile))
    for line in totals(profile):
        console.print(line, markup=False)


def layer_table(profile: Profile) -> Table:
    """Return the layers as a table, those first that lose most time against the machine's peak."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    result = Table(title="layers", title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for heading in _NUMBERS:
        result.add_column(heading, justify="right", no_wrap=True)
    for heading in ("rule", "kernel", "output"):
        result.add_column(heading, no_wrap=True)
    for layer in profile.layers:
        numbers = (
            f"{layer.ms:.3f}",
            f"{layer.share:.1%}",
            str(layer.calls),
            _optional(layer.gflops, ".1f"),
            _optional(layer.gb_per_s, ".1f"),
            _optional(layer.of_peak, ".0%"),
            f"{layer.lost_ms:.3f}",
        )
        shape = "x".join(map(str, layer.shape)) or "scalar"
        result.add_row(*numbers, *map(Text, (layer.rule, layer.kernel, shape)))
    return result


def totals(profile: Profile) -> list[str]:
    """Return sentences for below the table: the sums, and what the peak is."""
    total, peak = profile.total_ms, profile.peak

    def part(ms: float) -> str:
        return f"{ms:.3f} ms ({ms / total:.1%})"

    rest = f"all else {part(profile.overhead_ms)}."
    if profile.builtin_calls:
        rest = (
            f"the virtual machine {part(profile.overhead_ms)}; of that its {profile.builtin_calls} calls of "
            f"vm.builtin.* {part(profile.builtin_ms)}."
        )
    return [
        f"A run takes {total:.3f} ms, its kernels {part(profile.kernels_ms)}, {rest}",
        f"Peak: {peak.gflops:.0f} GFLOPS and {peak.gb_per_s:.1f} GB/s, measured with {peak.threads} "
        f"thread{'s' if peak.threads > 1 else ''}. Medians of {profile.runs} runs.",
    ]


def _optional(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)
