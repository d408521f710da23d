"""Logs: files of records that are only appended to: a kill at any moment loses no line that was there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from compiler.schedule.records import Record, from_line, to_line
from compiler.support.errors import UsageError
from compiler.support.files import atomic_path

SUFFIX = ".jsonl"
"""The name of a log ends so."""


@dataclass(frozen=True)
class Problem:
    """A line that is no record, and why; the others are not affected."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.reason}; skipped"


@dataclass(frozen=True)
class Logged:
    """What logs hold: the records in order, and the lines that are none."""

    records: tuple[Record, ...]
    problems: tuple[Problem, ...] = ()


def read_log(path: Path) -> Logged:
    """Read one log; lines that are damaged or foreign are skipped and reported.

    Raises:
        UsageError: it cannot be read.
    """
    records, problems = [], []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            records.append(from_line(line.decode("utf-8")))
        except ValueError as error:  # bytes that are no text are one, too
            problems.append(Problem(path, number, str(error)))
    return Logged(tuple(records), tuple(problems))


def read_logs(paths: Iterable[Path]) -> Logged:
    """Read all logs of `paths`: files, and folders with files in them at any depth.

    Raises:
        UsageError: one cannot be read.
    """
    every = [read_log(path) for path in log_files(paths)]
    return Logged(
        tuple(record for each in every for record in each.records),
        tuple(problem for each in every for problem in each.problems),
    )


def log_files(paths: Iterable[Path]) -> list[Path]:
    """Return the logs that `paths` are or hold, in the order of their names."""
    found: list[Path] = []
    for path in paths:
        found += sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
    return found


def write_log(path: Path, records: Iterable[Record]) -> None:
    """Write a new log, whole or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{to_line(record)}\n" for record in records), encoding="utf-8")


def check_log(path: Path) -> None:
    """Find out now, before long work, whether a `Log` could be written at `path`.

    Raises:
        UsageError: it could not.
    """
    new = not path.exists()
    with Log(path):
        if new:
            path.unlink(missing_ok=True)


class Log:
    """A log that records are appended to, by one process at a time.

    Raises:
        UsageError: its folder cannot be made or written, another process writes to it, or the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise UsageError(
                f"another kiln is writing '{path}': wait for it, or give another folder with --logs"
            ) from error

    def append(self, record: Record) -> None:
        """Add a record; when this returns it is on the disk."""
        with self._explained():
            data = f"{to_line(record)}\n".encode()
            # What a killed writer left of its line would swallow this one.
            if self._is_torn():
                data = b"\n" + data
            before = os.fstat(self._file).st_size
            try:
                written = os.write(self._file, data)
                if written < len(data):
                    raise OSError(28, os.strerror(28))
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, before)
                raise

    def close(self) -> None:
        """Let others write."""
        os.close(self._file)

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_torn(self) -> bool:
        size = os.fstat(self._file).st_size
        return size > 0 and os.pread(self._file, 1, size - 1) != b"\n"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"cannot write the tuning log '{self.path}': {error.strerror or error}; what was measured "
                "before is safe"
            ) from error


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            yield from stream
    except OSError as error:
        raise UsageError(f"cannot read the tuning log '{path}': {error.strerror or error}") from error
