"""How a tuning goes: a table that moves in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, TextIO

from compiler.cli.columns import fitted
from compiler.cli.console import Console
from compiler.cli.tune_table import task_columns, task_row

if TYPE_CHECKING:
    from rich.live import Live

    from compiler.tune.beside import PeerTime
    from compiler.tune.tuner import Tuner

_STAGE = "tune"
_SECONDS_BETWEEN_LINES = 5.0
_ROWS = 12
"""Kernels in the table: those that take longest."""

_COLUMNS = task_columns("best us")


class TuneView(Console):
    """Shows stages as any console does, and in the stage of tuning what is known so far.

    Attributes:
        tuner: who tunes, None before that begins.
        peer: what the network is compared with, if anything.
    """

    def __init__(self, stream: TextIO, live: bool = True) -> None:
        """Write to `stream`; `live` allows a moving table if it is a terminal."""
        super().__init__(stream, live)
        self.tuner: Tuner | None = None
        self.peer: PeerTime | None = None
        self._phase = ""
        self._said = time.monotonic()
        self._statuses: Counter[str] = Counter()
        self._table: Live | None = None

    def begin(self, name: str) -> None:
        """Show that a stage starts."""
        if name == _STAGE and self._live:
            self._stages.append(name)
            self._show(None)
            self._start()
        else:
            super().begin(name)

    def note(self, text: str) -> None:
        """Show a line above the table, or below the stage."""
        if self._table is not None:
            self._table.console.print(text, markup=False, highlight=False)
        else:
            super().note(text)

    def end(self, name: str, seconds: float, failed: bool) -> None:
        """Show how long the stage took."""
        if self._table is not None and name == _STAGE:
            self._table.stop()
            self._table = None
        super().end(name, seconds, failed)

    def started(self, tuner: Tuner) -> None:
        """Hear who tunes."""
        self.tuner = tuner

    def phase(self, name: str) -> None:
        """Hear that another part of the search begins."""
        self._phase = name
        if self._table is None:
            self.note(name)

    def saw(self, task: Any, record: Any) -> None:
        """Hear of a trial."""
        self._statuses[record.status] += 1
        if self._table is None and time.monotonic() - self._said > _SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            self.note(self.line())

    def line(self) -> str:
        """Return what is known in one line."""
        tuner = self.tuner
        if tuner is None:
            return "starting the processes that build and measure"
        spent = max(tuner.elapsed(), 1e-9)
        parts = [f"{tuner.trials} trials, {tuner.trials / spent:.1f} a second", _left(tuner)]
        first, best = tuner.estimate
        if first:
            what = "network" if tuner.start else "kernels"
            parts.append(f"{what} {best * 1e3:.3f} ms, {best / first:.3f} of untuned {first * 1e3:.3f}")
            if self.peer is not None:
                parts.append(f"{best / self.peer.seconds:.3f} of {self.peer}")
        parts += [f"{count} {status}" for status, count in self._statuses.items() if status != "ok"]
        return "; ".join(part for part in parts if part)

    def _start(self) -> None:
        from rich.console import Console as RichConsole
        from rich.live import Live

        console = RichConsole(file=self._stream, force_terminal=True)
        self._table = Live(
            console=console, get_renderable=self._renderable, refresh_per_second=2, transient=True
        )
        self._table.start()

    def _renderable(self) -> Any:
        from rich.console import Group

        head = f"{_STAGE}: {self._phase or 'start'}; {self.line()}"
        if self.tuner is None:
            return head
        known = [task for task in self.tuner.tasks if task.first is not None]
        rows = [task_row(task) for task in sorted(known, key=lambda each: -each.untuned)[:_ROWS]]
        width = None if self._table is None else self._table.console.width
        return Group(head, fitted(_COLUMNS, rows, width))


def _left(tuner: Tuner) -> str:
    seconds = tuner.budget.seconds_left(tuner.trials, tuner.elapsed())
    if seconds is None:
        return ""
    return f"{seconds / 60:.0f} min left" if seconds >= 120 else f"{seconds:.0f} s left"
