"""What a quantization did, as plain data: for a manifest, a ``.kq`` file and a page to look at."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    `reason` says why it stays in float, and is empty if it is quantized, with weights of `bits` bits. Each
    takes `stored` bits in a library, which may be more; None where that is not known.
    `weights_sqnr` is the SQNR of its weights in dB; `own_sqnr` of what it gives and `output_sqnr` of what the
    network gives when this layer alone is quantized, None where that was not measured.
    """

    name: str
    operator: str
    weights: str
    reason: str = ""
    weights_sqnr: float | None = None
    own_sqnr: float | None = None
    output_sqnr: float | None = None
    bits: int = 32
    stored: int | None = None


@dataclass(frozen=True)
class RangeReport:
    """One value that became bytes: what was seen of it, and what its codes stand for.

    `low` to `high` is what was seen, `least` to `most` what codes stand for, in steps of `scale`. `bins`
    holds how many values there were in each of equal parts from `low` to `high`. `shared` counts the values
    that have this grid in common.
    """

    name: str
    low: float
    high: float
    least: float
    most: float
    scale: float
    zero_point: int
    shared: int
    bins: tuple[int, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FloatReport:
    """An operator that computes in float, and why."""

    name: str
    operator: str
    reason: str


@dataclass(frozen=True)
class OutputReport:
    """One output of the quantized model compared with that of the model in float, over `samples` samples."""

    name: str
    sqnr: float | None
    cosine: float
    top1: float | None

    def __str__(self) -> str:
        noise = "no error" if self.sqnr is None else f"SQNR {self.sqnr:.1f} dB"
        agreement = "" if self.top1 is None else f", same top-1 in {self.top1:.1%}"
        return f"{self.name}: {noise}, cosine {self.cosine:.5f}{agreement}"


@dataclass(frozen=True)
class ScoreReport:
    """The score that the user, or for want of one the agreement with the model in float, gives.

    `allowed` is the greatest drop that was allowed, None if none was stated; `kept` names the layers that
    stay in float for it, the most sensitive first.
    """

    metric: str
    in_float: float
    quantized: float
    allowed: float | None = None
    kept: tuple[str, ...] = ()

    @property
    def drop(self) -> float:
        """How much lower the score of the quantized model is."""
        return self.in_float - self.quantized

    def __str__(self) -> str:
        return f"{self.metric} {self.in_float:.4g} in float, {self.quantized:.4g} quantized"


@dataclass(frozen=True)
class Report:
    """All that is known about a quantization.

    `data` names the calibration data, `sha256` is over its arrays, `batches` counts the runs, `is_random`
    tells that there was none. `warnings` are what the user should not overlook.
    """

    scheme: str
    description: str
    method: str
    data: str
    sha256: str
    batches: int
    is_random: bool
    layers: tuple[LayerReport, ...]
    ranges: tuple[RangeReport, ...]
    floats: tuple[FloatReport, ...]
    outputs: tuple[OutputReport, ...] = ()
    score: ScoreReport | None = None
    warnings: tuple[str, ...] = ()

    @property
    def quantized(self) -> int:
        """How many layers are quantized."""
        return sum(not layer.reason for layer in self.layers)

    def lines(self) -> list[str]:
        """Return the report in a few sentences."""
        kept = [layer for layer in self.layers if layer.reason]
        lines = [f"{self.quantized} of {len(self.layers)} layers are {self.scheme} ({self.description})"]
        lines += [f"layer '{layer.name}' stays in float: {layer.reason}" for layer in kept[:8]]
        if len(kept) > 8:
            lines.append(f"and {len(kept) - 8} more layers stay in float")
        lines += summarize_floats(self.floats)
        lines += summarize_storage(self.layers)
        if self.score is not None:
            lines.append(str(self.score))
        return [*lines, *map(str, self.outputs), *self.warnings]

    def with_widened(self, widened: Iterable[tuple[str, str]]) -> Report:
        """Return the report of a library that stores some rounded weights as float32.

        `widened` are the operators and the shapes of these, as in `LayerReport`.
        """
        counts = Counter(widened)
        layers = []
        for layer in self.layers:
            key = layer.operator, layer.weights
            if not layer.reason and counts[key]:
                counts[key] -= 1
                layer = dataclasses.replace(layer, stored=32)
            layers.append(layer)
        return dataclasses.replace(self, layers=tuple(layers))

    def to_plain(self) -> dict[str, Any]:
        """Return the report as what JSON can hold."""
        plain = _plain(dataclasses.asdict(self))
        assert isinstance(plain, dict)
        return plain

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Report:
        """Return the report that `to_plain` gave.

        Raises:
            TypeError: a field is missing or unknown.
        """
        score = data.get("score")
        parts = {
            "layers": tuple(LayerReport(**each) for each in data["layers"]),
            "ranges": tuple(_range(each) for each in data["ranges"]),
            "floats": tuple(FloatReport(**each) for each in data["floats"]),
            "outputs": tuple(OutputReport(**each) for each in data["outputs"]),
            "score": None if score is None else ScoreReport(**{**score, "kept": tuple(score["kept"])}),
            "warnings": tuple(data["warnings"]),
        }
        return cls(**{**data, **parts})


def summarize_floats(floats: tuple[FloatReport, ...]) -> list[str]:
    """Return how many operators stay in float for each reason."""
    reasons: dict[str, dict[str, int]] = {}
    for each in floats:
        counts = reasons.setdefault(each.reason, {})
        counts[each.operator] = counts.get(each.operator, 0) + 1
    return [
        f"in float: {', '.join(f'{count} {operator}' for operator, count in counts.items())} ({reason})"
        for reason, counts in reasons.items()
    ]


def summarize_storage(layers: tuple[LayerReport, ...]) -> list[str]:
    """Return where weights take more bits in a library than they were rounded to."""
    lines = []
    quantized = [layer for layer in layers if not layer.reason and layer.stored is not None]
    wider = {(each.bits, each.stored) for each in quantized if each.bits < (each.stored or 0) <= 8}
    for bits, stored in sorted(wider):
        lines.append(
            f"weights of {bits} bits are stored in {stored}: "
            + ("integer kernels multiply bytes" if stored == 8 else "codes have 1, 2, 4 or 8 bits")
        )
    widened: dict[str, list[str]] = {}
    for layer in quantized:
        if layer.stored == 32:
            widened.setdefault(layer.operator, []).append(layer.name)
    for operator, names in widened.items():
        listed = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        lines.append(
            f"rounded, but stored as float32: the weights of {len(names)} {operator} ({listed}); "
            "no kernel of this target reads their codes"
        )
    return lines


def _range(data: Mapping[str, Any]) -> RangeReport:
    return RangeReport(**{**data, "bins": tuple(data["bins"]), "notes": tuple(data["notes"])})


def _plain(value: Any) -> Any:
    """Return `value` with lists for tuples, and None for what is no number of JSON."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
