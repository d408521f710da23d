"""Stage names and times, shown while Kiln works.

The stages say what they do with ``with stage("import"):`` and ``note("...")``; who watches decides how
it looks. Nothing is shown until a watcher is installed: a library keeps quiet, the command line
installs `Console`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Watcher(Protocol):
    """Who is told what goes on."""

    def begin(self, name: str) -> None:
        """Hear that a stage starts."""

    def note(self, text: str) -> None:
        """Hear what the stage says about its work."""

    def end(self, name: str, seconds: float, failed: bool) -> None:
        """Hear that a stage is over after `seconds` of wall time, by an exception if `failed`."""


class Silent:
    """The watcher of a library: shows nothing."""

    def begin(self, name: str) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""

    def end(self, name: str, seconds: float, failed: bool) -> None:
        """Ignore it."""


_watcher: ContextVar[Watcher] = ContextVar("watcher", default=Silent())  # noqa: B039


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Tell `watcher` about every stage inside the block."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def watcher() -> Watcher:
    """Return who watches."""
    return _watcher.get()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Report the block as the stage `name`, with its wall time in seconds."""
    watcher = _watcher.get()
    watcher.begin(name)
    start, failed = time.perf_counter(), True
    try:
        yield
        failed = False
    finally:
        watcher.end(name, time.perf_counter() - start, failed)


def note(text: str) -> None:
    """Say something about the stage that runs."""
    _watcher.get().note(text)


SECONDS_BETWEEN_NOTES = 5.0


class Progress:
    """Says now and then how far something is that is done piece by piece, and how long the rest will take."""

    def __init__(self, what: str, total: int | None) -> None:
        """Begin with a first piece, called `what`; `total` is how many there are, None if nobody knows."""
        self._what, self._total = what, total
        self._began = self._said = time.perf_counter()

    def done(self, count: int) -> None:
        """Hear that `count` pieces are done; speak if nothing was said for some seconds."""
        now = time.perf_counter()
        if now - self._said <= SECONDS_BETWEEN_NOTES:
            return
        self._said = now
        left = ""
        if self._total is not None:
            left = f" of {self._total}, {(now - self._began) / count * (self._total - count):.0f} s left"
        note(f"{self._what} {count}{left}")
