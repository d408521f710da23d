"""Tables at any width: nothing wraps, what matters stays."""

import io

import pytest
from rich.console import Console

from compiler.cli.columns import Column, fitted, show

COLUMNS = (
    Column("kernel", least=10),
    Column("calls", rank=2, number=True),
    Column("us", number=True),
    Column("path", rank=1, least=8, keeps_end=True),
)
ROWS = [
    ("conv2d 1x8x28x28x16 -> 1x16x14x14x16 float32", "12", "1234", "/a/long/way/to/a/log.jsonl"),
    ("dense [red]5[/red]", "1", "7", "log.jsonl"),
]


def _text(width):
    stream = io.StringIO()
    Console(file=stream, width=width or 300).print(fitted(COLUMNS, ROWS, width))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 120, None])
def test_every_row_is_one_line_that_fits(width):
    lines = _text(width)
    assert len(lines) == 1 + len(ROWS)
    assert all(len(line) <= (width or 300) for line in lines)
    assert "kernel" in lines[0]
    assert "us" in lines[0]
    assert "1234" in lines[1]


def test_what_matters_least_goes_first_and_what_is_long_is_cut():
    assert "calls" in _text(80)[0]
    assert "calls" not in _text(30)[0]
    assert "path" in _text(30)[0]
    assert "path" not in _text(18)[0]
    assert "…" in _text(60)[1]
    assert _text(60)[1].endswith("g.jsonl")
    assert "dense [red]5[/red]" in _text(None)[2], "markup is shown as it is"


def test_all_is_there_when_no_terminal_asks(monkeypatch):
    stream = io.StringIO()
    monkeypatch.delenv("COLUMNS", raising=False)
    show(Console(file=stream), COLUMNS, ROWS)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["kernel", "calls", "us", "path"]
    assert lines[1].split("  ")[-1] == ROWS[0][-1]
    assert all(word in lines[1] for word in ROWS[0])
    monkeypatch.setenv("COLUMNS", "40")
    stream = io.StringIO()
    show(Console(file=stream), COLUMNS, ROWS)
    assert all(len(line.rstrip()) <= 40 for line in stream.getvalue().splitlines())
