"""How near the outputs of a quantized model are to those of the model in float."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class OutputFidelity:
    """One output compared over all data.

    `sqnr` is 10 log10 of the power of the output over that of the error, in dB (infinite without error);
    `cosine` is the mean cosine between the two, a sample each; `top1` is the part of samples whose greatest
    element is at the same place, None for what is no row of scores.
    """

    name: str
    sqnr: float
    cosine: float
    top1: float | None

    def __str__(self) -> str:
        text = f"{self.name}: SQNR {self.sqnr:.1f} dB, cosine {self.cosine:.5f}"
        return text if self.top1 is None else f"{text}, same top-1 in {self.top1:.1%}"


class Fidelity:
    """Compares outputs batch by batch, in constant memory."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._totals = [_Total() for _ in self._names]

    def add(self, expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> None:
        """Take in the outputs of both models for the same inputs."""
        for total, wanted, got in zip(self._totals, expected, actual, strict=True):
            if "float" in wanted.dtype.name and wanted.size:
                total.add(np.asarray(wanted, np.float64), np.asarray(got, np.float64))

    @property
    def outputs(self) -> tuple[OutputFidelity, ...]:
        """What was found, for each output of floats."""
        pairs = zip(self._names, self._totals, strict=True)
        return tuple(total.result(name) for name, total in pairs if total.samples)

    @property
    def worst(self) -> OutputFidelity | None:
        """The output with the least SQNR."""
        return min(self.outputs, key=lambda output: output.sqnr, default=None)


class _Total:
    """Sums over the batches of one output."""

    def __init__(self) -> None:
        self.samples = self.rows = self.hits = 0
        self.signal = self.noise = self.cosines = 0.0

    def add(self, wanted: np.ndarray, got: np.ndarray) -> None:
        whole = np.isfinite(wanted) & np.isfinite(got)
        wanted, got = np.where(whole, wanted, 0), np.where(whole, got, 0)
        self.signal += float((wanted**2).sum())
        self.noise += float(((wanted - got) ** 2).sum())
        first = wanted.shape[0] if wanted.ndim > 1 else 1
        flat, other = wanted.reshape(first, -1), got.reshape(first, -1)
        self.samples += first
        self.cosines += float(_cosines(flat, other).sum())
        if wanted.ndim == 2 and wanted.shape[1] > 1:
            self.rows += first
            self.hits += int((flat.argmax(1) == other.argmax(1)).sum())

    def result(self, name: str) -> OutputFidelity:
        top1 = self.hits / self.rows if self.rows else None
        return OutputFidelity(name, decibels(self.signal, self.noise), self.cosines / self.samples, top1)


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the cosine between the rows of two matrices; 1 between equal rows, also of zeros."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    products = (one * other).sum(1)
    cosines = products / np.where(lengths > 0, lengths, 1)
    return np.asarray(np.where(lengths > 0, cosines, (one == other).all(1)))


def decibels(signal: float, noise: float) -> float:
    """Return the ratio of two powers in dB; infinite without noise, and also for no signal at all then."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
