"""What is shown while a tuning runs: lines where nothing moves, a table in a terminal."""

import io
import re

from compiler.cli import tune_view
from compiler.cli.tune_view import TuneView
from compiler.schedule.log import Log
from compiler.support.progress import note, stage, watching
from compiler.tune.budget import Budget
from compiler.tune.tuner import Facts, Tuner
from tests.tune.made_up import DEVICE, Formula, task


class Terminal(io.StringIO):
    def isatty(self):
        return True


def _tune(view, tmp_path):
    tasks = [task("conv2d 1x2 -> 3x4 float32 #1", calls=2), task("dense 5 -> 6 float32 #2")]
    fails = Formula(lambda plain: "crashed" if plain["tile"]["vectors"] == 3 else None)
    with view, watching(view), Log(tmp_path / "log.jsonl") as log:
        with stage("import"):
            note("before")
        with stage("tune"):
            numbers = {each: number for number, each in enumerate(tasks)}
            facts = Facts(DEVICE, 2, "", "", "", "s")
            made = Tuner(tasks, numbers, fails, log, facts, Budget(trials=60, seconds=600), view)
            made.run()
            return made, view.line()


def test_lines_say_how_far_it_is_and_what_was_gained(tmp_path, monkeypatch):
    monkeypatch.setattr(tune_view, "_SECONDS_BETWEEN_LINES", 0)
    stream = io.StringIO()
    _, line = _tune(TuneView(stream), tmp_path)
    assert "min left; kernels " in line or "s left; kernels " in line
    assert re.search(r" of untuned \d\.\d+; ", line)
    assert line.endswith(" crashed")
    text = stream.getvalue()
    for part in (
        "    before\n",
        "import ",
        "    defaults\n",
        "    search\n",
        "    leaders\n",
        "tune ",
        "trials, ",
    ):
        assert part in text, part


def test_in_a_terminal_a_table_moves(tmp_path):
    stream = Terminal()
    view = TuneView(stream)
    _tune(view, tmp_path)
    text = stream.getvalue()
    assert "\x1b[" in text, "it moves"
    assert "tune" in text
    assert "defaults\n" not in text, "phases are in the head of the table"


def test_the_table_has_the_longest_kernels_first(tmp_path):
    from rich.console import Console

    view = TuneView(io.StringIO())
    assert "starting" in view.line()
    _tune(view, tmp_path)
    stream = io.StringIO()
    Console(file=stream, width=120).print(view._renderable())
    text = stream.getvalue()
    assert text.index("conv2d 1x2 -> 3x4 float32") < text.index("dense 5 -> 6 float32")
    assert "leaders" in text
