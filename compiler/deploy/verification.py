"""Recomputes a bundle's golden outputs on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compiler.bundle import read
from compiler.deploy.session import load
from compiler.support.errors import BundleError, InputError


@dataclass(frozen=True)
class OutputReport:
    """One output compared with its golden value.

    `error` is the greatest absolute difference divided by the range of the golden output (0 for equal,
    infinite where the shape or the NaNs differ), `tolerance` what is allowed.
    """

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error <= self.tolerance


def verify(bundle: str | os.PathLike[str], threads: int | None = None) -> list[OutputReport]:
    """Check the hash of every part, run the model on the golden inputs and compare its outputs.

    Raises:
        UsageError: there is no such file.
        BundleError: the bundle is damaged, has no golden data, or was made for another machine.
    """
    opened = read(Path(bundle))
    opened.verify_parts()
    golden, signature = opened.manifest.golden, opened.manifest.signature
    if golden is None:
        raise BundleError(
            f"the bundle '{bundle}' has no golden data: its parts are whole, but nothing can be run"
        )
    inputs, outputs = opened.golden()
    session = load(bundle, threads)
    try:
        got = session.run({spec.name: array for spec, array in zip(signature.inputs, inputs, strict=True)})
    except InputError as error:
        raise BundleError(f"the golden inputs of '{bundle}' do not fit its signature: {error}") from error
    return [
        OutputReport(spec.name, relative_error(got[spec.name], want), golden.tolerance)
        for spec, want in zip(signature.outputs, outputs, strict=True)
    ]


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """Return max |got - want| / (max want - min want), over finite values.

    Where the range is below 1 % of the magnitude (one value, or hardly different ones) the magnitude
    counts, and 1 if that is 0. The range of bytes is 255: they are levels of what is quantized. Infinite
    where shapes or dtypes differ, where NaNs or infinities stand at different places, and for wider integers
    or bools that differ.
    """
    if got.shape != want.shape or got.dtype != want.dtype:
        return float("inf")
    if want.dtype.kind in "iu" and want.dtype.itemsize == 1:
        return float(np.abs(got.astype(np.int32) - want).max(initial=0)) / 255
    if want.dtype.kind in "biu":
        return 0.0 if np.array_equal(got, want) else float("inf")
    have, wanted = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(wanted)
    if (
        not np.array_equal(have[~finite], wanted[~finite], equal_nan=True)
        or not np.isfinite(have[finite]).all()
    ):
        return float("inf")
    if not finite.any():
        return 0.0
    have, wanted = have[finite], wanted[finite]
    span, magnitude = float(wanted.max() - wanted.min()), float(np.abs(wanted).max())
    scale = (span if span >= 0.01 * magnitude else magnitude) or 1.0
    return float(np.abs(have - wanted).max()) / scale
