"""How near the outputs of a runtime are to those of the original, and what still counts as right.

In float32 the largest error decides. Below, errors are meant to be there and only their power says how much
is left of the output: the ratio of the two (SQNR), over all samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from compiler.compress.fidelity import Fidelity
from compiler.deploy.peers.session import PeerError, Session, Workload

TOLERANCE = 1e-3
"""Largest error over an output's range at which a runtime still counts as right in float32."""

LEAST_DB = {"int8": 10.0, "bf16": 20.0}
"""Least SQNR, in dB, of a runtime that counts as right at a lower precision."""


@dataclass(frozen=True)
class Accuracy:
    """A runtime beside the original, over all samples; of several outputs the worst counts.

    `sqnr_db` is None where no output is of floats, `top1` (the part of samples with the same greatest score)
    where none is a row of scores.
    """

    max_abs_error: float
    error_over_range: float
    sqnr_db: float | None = None
    top1: float | None = None

    def is_right(self, precision: str) -> bool:
        """Whether a runtime this near to the original has computed the model."""
        if precision == "fp32" or self.sqnr_db is None:
            return self.error_over_range <= TOLERANCE
        # A NaN has no power; it shows in the error alone.
        return math.isfinite(self.error_over_range) and self.sqnr_db >= LEAST_DB[precision]

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def assess(session: Session, workload: Workload) -> Accuracy:
    """Run `session` on every sample and compare; its inputs are then the workload's again.

    Raises:
        PeerError: the outputs are not as many or not of the shapes of the original's.
    """
    worst, worst_relative = 0.0, 0.0
    fidelity: Fidelity | None = None
    for inputs, expected in workload.samples():
        session.feed(inputs)
        session.run()
        outputs = session.outputs()
        absolute, relative = compare(outputs, expected)
        worst, worst_relative = max(worst, absolute), max(worst_relative, relative)
        fidelity = fidelity or Fidelity([str(position) for position in range(len(expected))])
        fidelity.add(expected, outputs)
    session.feed(workload.arrays())
    found = fidelity.worst if fidelity else None
    if found is None:
        return Accuracy(worst, worst_relative)
    return Accuracy(worst, worst_relative, found.sqnr, found.top1)


def compare(outputs: list[np.ndarray], reference: list[np.ndarray]) -> tuple[float, float]:
    """Return the largest absolute error, and the largest error of an output over that output's range.

    The range of an output is its greatest minus its least value in the reference (its greatest magnitude
    where it is constant). A NaN that the reference lacks counts as an infinite error.

    Raises:
        PeerError: the outputs are not as many or not of the shapes of the reference.
    """
    if [a.shape for a in outputs] != [a.shape for a in reference]:
        raise PeerError(f"its outputs have shapes {_shapes(outputs)}, the original's {_shapes(reference)}")
    worst, worst_relative = 0.0, 0.0
    for got, expected in zip(outputs, reference, strict=True):
        if not expected.size:
            continue
        got64, expected64 = got.astype(np.float64), expected.astype(np.float64)
        same = (got64 == expected64) | (np.isnan(got64) & np.isnan(expected64))
        with np.errstate(invalid="ignore"):
            error = float(np.where(same, 0.0, np.abs(got64 - expected64)).max())
        error = error if not np.isnan(error) else float("inf")
        finite = expected64[np.isfinite(expected64)]
        extent = float(np.ptp(finite) or np.abs(finite).max()) if finite.size else 0.0
        relative = error / extent if extent else (float("inf") if error else 0.0)
        worst, worst_relative = max(worst, error), max(worst_relative, relative)
    return worst, worst_relative


def _shapes(arrays: Iterable[np.ndarray]) -> str:
    return ", ".join("x".join(map(str, a.shape)) or "scalar" for a in arrays)
