"""Progress on stderr, and silence for what libraries say besides."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from compiler.support.errors import KilnWarning
from compiler.support.progress import note

if TYPE_CHECKING:
    from rich.status import Status

_WIDTH = 10


class Console:
    """Shows each stage with its time: live in a terminal, one plain line a stage elsewhere.

    A stage inside another is indented. Used as a context manager, which takes the live line away.
    """

    def __init__(self, stream: TextIO, live: bool = True) -> None:
        """Write to `stream`; `live` allows a moving line if it is a terminal."""
        self._stream = stream
        self._live = live and stream.isatty()
        self._stages: list[str] = []
        self._status: Status | None = None

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show(None)

    @property
    def live(self) -> bool:
        """Whether lines may move."""
        return self._live

    def begin(self, name: str) -> None:
        """Show that a stage starts."""
        self._stages.append(name)
        self._show(name)

    def note(self, text: str) -> None:
        """Show a line below the stage."""
        self._line("  " * (len(self._stages) + 1) + text)

    def end(self, name: str, seconds: float, failed: bool) -> None:
        """Show how long the stage took."""
        self._stages.pop()
        took = "failed" if failed else f"{seconds:6.2f} s"
        self._show(None)
        self._line(f"{'  ' * len(self._stages)}{name:<{_WIDTH}} {took}")
        if self._stages:
            self._show(self._stages[-1])

    def _line(self, text: str) -> None:
        # A terminal that went away is no reason to fail.
        with contextlib.suppress(OSError, ValueError):
            if self._status is not None:
                self._status.console.print(text, markup=False, highlight=False)
            else:
                print(text, file=self._stream, flush=True)

    def _show(self, name: str | None) -> None:
        """Show `name` on the live line; None takes the line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        if name is None or not self._live:
            return
        from rich.console import Console as RichConsole

        self._status = RichConsole(file=self._stream, force_terminal=True).status(f"{name} ...")
        self._status.start()


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keep the warnings and log lines of Python libraries from the screen; Kiln's own become notes.

    What C++ writes is left alone: it is silent unless it is about to end the process.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", KilnWarning)
            warnings.showwarning = _as_note
            yield
    finally:
        logging.disable(disabled)


def _as_note(message: Warning | str, *rest: Any, **more: Any) -> None:
    note(f"warning: {message}")
