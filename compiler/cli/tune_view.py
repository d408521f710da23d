"""How a tuning goes: a table that moves in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, TextIO

from compiler.cli.console import Console

if TYPE_CHECKING:
    from rich.live import Live

    from compiler.tune.tuner import Tuner

_STAGE = "tune"
_SECONDS_BETWEEN_LINES = 5.0
_ROWS = 12
"""Kernels in the table: those that take longest."""


class TuneView(Console):
    """Shows stages as any console does, and in the stage of tuning what is known so far."""

    def __init__(self, stream: TextIO, live: bool = True) -> None:
        """Write to `stream`; `live` allows a moving table if it is a terminal."""
        super().__init__(stream, live)
        self._tuner: Tuner | None = None
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
        self._tuner = tuner

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
        tuner = self._tuner
        if tuner is None:
            return "starting the processes that build and measure"
        spent = max(tuner.elapsed(), 1e-9)
        parts = [f"{tuner.trials} trials, {tuner.trials / spent:.1f} a second", _left(tuner)]
        first = sum(task.untuned for task in tuner.tasks if task.first is not None)
        if first:
            best = sum(task.total for task in tuner.tasks if task.first is not None)
            parts.append(f"kernels {best * 1e3:.3f} ms, {best / first:.3f} of untuned")
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
        from rich.table import Table

        head = f"{_STAGE}: {self._phase or 'start'}; {self.line()}"
        if self._tuner is None:
            return head
        table = Table("kernel", "calls", "trials", "untuned us", "best us", "ratio", box=None)
        known = [task for task in self._tuner.tasks if task.first is not None]
        for task in sorted(known, key=lambda each: -each.untuned)[:_ROWS]:
            times = (
                f"{task.untuned * 1e6:.0f}",
                f"{task.total * 1e6:.0f}",
                f"{task.total / task.untuned:.2f}",
            )
            table.add_row(task.workload.split(" #")[0], str(task.calls), str(len(task.records)), *times)
        return Group(head, table)


def _left(tuner: Tuner) -> str:
    seconds = tuner.budget.seconds_left(tuner.trials, tuner.elapsed())
    if seconds is None:
        return ""
    return f"{seconds / 60:.0f} min left" if seconds >= 120 else f"{seconds:.0f} s left"
