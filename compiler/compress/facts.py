"""What a report and a manifest say about calibration data: which it was, how much, and what looked odd."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from compiler.compress.batches import Batch

_TIMES = 10
"""How many times wider or narrower than the examples data may be before the report says so."""

Range = tuple[float, float]


@dataclass(frozen=True)
class DataFacts:
    """The calibration data of a model.

    `origin` names it, `sha256` is over the names, dtypes, shapes and bytes of all inputs in the order they
    were used, `batches` counts the runs, `is_random` tells that there was no data at all, and `notes` are
    for the report.
    """

    origin: str
    sha256: str
    batches: int
    is_random: bool = False
    notes: tuple[str, ...] = ()


class Tally:
    """Looks at each batch as it goes by, in constant memory."""

    def __init__(self, usual: Mapping[str, Range] | None = None) -> None:
        """Compare with the `usual` range of each input, if known: that of the example inputs."""
        self.batches = 0
        self._usual = usual or {}
        self._hash = hashlib.sha256()
        self._ranges: dict[str, Range] = {}
        self._whole: dict[str, bool] = {}

    def add(self, batch: Batch) -> None:
        """Take in one batch of checked arrays."""
        self.batches += 1
        for name, array in batch.items():
            self._hash.update(f"{name}:{array.dtype.name}:{array.shape};".encode())
            self._hash.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            if "float" in array.dtype.name and array.size:
                self._look(name, array)

    @property
    def sha256(self) -> str:
        """The hash of all batches so far, in hexadecimal."""
        return self._hash.hexdigest()

    def notes(self) -> tuple[str, ...]:
        """Say which inputs have values that the model was hardly trained with."""
        notes = (self._note(name, *bounds) for name, bounds in self._ranges.items())
        return tuple(note for note in notes if note)

    def _look(self, name: str, array: np.ndarray) -> None:
        low, high = float(array.min()), float(array.max())
        before = self._ranges.get(name, (low, high))
        self._ranges[name] = min(low, before[0]), max(high, before[1])
        if self._whole.setdefault(name, True):
            self._whole[name] = bool((array == np.rint(array)).all())

    def _note(self, name: str, low: float, high: float) -> str:
        given = f"input '{name}' ranges from {low:.4g} to {high:.4g} in the calibration data"
        if name in self._usual:
            least, most = self._usual[name]
            usual, here = max(abs(least), abs(most)), max(abs(low), abs(high))
            if usual and not 1 / _TIMES <= here / usual <= _TIMES:
                return f"{given} and from {least:.4g} to {most:.4g} in the examples: is it normalized alike?"
        elif low >= 0 and 128 <= high <= 255 and self._whole[name]:
            return f"{given}, all whole numbers: pixels that should be normalized as in training?"
        return ""


def usual_ranges(names: Iterable[str], examples: Iterable[np.ndarray]) -> dict[str, Range]:
    """Return the range of each example input that has one, by name."""
    return {
        name: (float(example.min()), float(example.max()))
        for name, example in zip(names, examples, strict=False)
        if example.size and "float" in example.dtype.name
    }
