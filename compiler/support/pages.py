"""Pages of ``.html`` that hold all they need: tables, texts, and charts drawn by plotly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from compiler.support.errors import UsageError
from compiler.support.files import atomic_path

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse } th, td { text-align: left; padding: .15rem .8rem .15rem 0 }
th { border-bottom: 1px solid #999 } .warning { color: #a40000 }
pre { background: #f4f4f4; padding: .5rem; overflow-x: auto; font-size: 12px }
"""


def write_page(title: str, sections: Sequence[str], path: Path) -> None:
    """Write a page to `path`, whole or not at all; `sections` are HTML.

    Raises:
        UsageError: `path` cannot be written.
    """
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    body = f"<h1>{escape(title)}</h1>{''.join(sections)}"
    with atomic_path(path) as temporary:
        temporary.write_text(
            f"<!doctype html><html><head>{head}</head><body>{body}</body></html>\n", encoding="utf-8"
        )


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table of texts as HTML."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def charts(figures: Iterable[Any]) -> list[str]:
    """Return plotly's figures as HTML; None stands for one that there is no data for, and is left out."""
    import plotly.io

    drawn = [figure for figure in figures if figure is not None]
    return [
        plotly.io.to_html(figure, full_html=False, include_plotlyjs=number == 0)
        for number, figure in enumerate(drawn)
    ]


def require_plotly() -> None:
    """Find out, before the work, whether charts can be drawn.

    Raises:
        UsageError: plotly is not installed.
    """
    try:
        import plotly.io  # noqa: F401
    except ImportError as error:
        raise UsageError("the report is drawn by plotly: pip install plotly") from error
