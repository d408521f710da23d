"""Tables that fit: in a narrow terminal the least important columns are left out and long texts cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_GAP = 2
"""Blanks between two columns."""

_ENDLESS = 1 << 16
"""Characters of a line in a file."""


@dataclass(frozen=True)
class Column:
    """A column of texts, or of numbers.

    Attributes:
        heading: above it.
        rank: 0 if it is always shown; the greater, the sooner it is left out.
        least: the least characters that it can be cut to; 0 if it cannot be cut.
        keeps_end: whether the beginning of what is cut is left out, not the end.
        number: whether it stands at the right.
    """

    heading: str
    rank: int = 0
    least: int = 0
    keeps_end: bool = False
    number: bool = False


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> Table:
    """Return a table of at most `width` characters a line; of any number if that is None.

    A table whose rigid columns of rank 0 alone are wider is as wide as these.
    """
    from rich.table import Table
    from rich.text import Text

    natural = [
        max(map(len, (column.heading, *(row[place] for row in rows)))) for place, column in enumerate(columns)
    ]
    widths = dict(enumerate(natural)) if width is None else _widths(columns, natural, width)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for place in widths:
        column = columns[place]
        table.add_column(
            column.heading,
            justify="right" if column.number else "left",
            no_wrap=True,
            min_width=widths[place],
        )
    for row in rows:
        table.add_row(*(Text(_cut(row[place], size, columns[place])) for place, size in widths.items()))
    return table


def show(console: Console, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that fits a terminal; where nobody looks at a width, such as in a file, all of it."""
    import os

    width = console.width if console.is_terminal or "COLUMNS" in os.environ else None
    if width is None:
        console.width = _ENDLESS
    console.print(fitted(columns, rows, width))


def _widths(columns: Sequence[Column], natural: Sequence[int], width: int) -> dict[int, int]:
    """Return the columns that are shown, with their widths."""
    least = [min(size, column.least or size) for column, size in zip(columns, natural, strict=True)]
    shown = list(range(len(columns)))

    def taken() -> int:
        return sum(least[place] for place in shown) + _GAP * (len(shown) - 1)

    while taken() > width and (optional := [place for place in shown if columns[place].rank]):
        shown.remove(max(optional, key=lambda place: columns[place].rank))
    room = max(0, width - taken())
    found = {}
    for place in shown:
        found[place] = min(natural[place], least[place] + room)
        room -= found[place] - least[place]
    return found


def _cut(text: str, size: int, column: Column) -> str:
    if len(text) <= size:
        return text
    return f"…{text[len(text) - size + 1 :]}" if column.keeps_end else f"{text[: size - 1]}…"
