import io
import logging
import warnings

import pytest

from compiler.cli.console import Console, hushed
from compiler.support.errors import KilnWarning
from compiler.support.progress import note, stage, watching


class Terminal(io.StringIO):
    def isatty(self):
        return True


def work():
    with stage("import"):
        note("a note")
    with stage("check"), stage("build"):
        pass


def test_plain_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    with Console(stream) as console, watching(console):
        work()
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["a", "import", "build", "check"]
    assert lines[1].endswith(" s")
    assert lines[2].startswith("  build")
    assert "\x1b" not in stream.getvalue()


def test_a_live_line_in_a_terminal_is_taken_away():
    stream = Terminal()
    with Console(stream) as console, watching(console):
        work()
    text = stream.getvalue()
    assert "import ..." in text
    assert text.rstrip().endswith(" s") or text.count("\x1b[2K")
    assert "\x1b[?25h" in text  # the cursor is back


def test_a_failed_stage_says_so():
    stream = io.StringIO()
    with pytest.raises(KeyError), Console(stream) as console, watching(console), stage("build"):
        raise KeyError
    assert stream.getvalue().split() == ["build", "failed"]


def test_a_closed_terminal_is_no_error():
    stream = io.StringIO()
    with Console(stream) as console, watching(console):
        stream.close()
        work()


def test_only_kilns_own_warnings_are_seen(capsys):
    stream = io.StringIO()
    with Console(stream) as console, watching(console), hushed(), stage("run"):
        warnings.warn("noise", UserWarning, stacklevel=1)
        logging.getLogger("some.library").warning("noise")
        warnings.warn("few threads", KilnWarning, stacklevel=1)
    assert "warning: few threads" in stream.getvalue()
    assert "noise" not in stream.getvalue() + capsys.readouterr().err
    assert logging.root.manager.disable == logging.NOTSET
