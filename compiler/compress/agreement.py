"""The check of a library that computes in integers.

It should be about as near to the quantized model, computed in float, as that is to the model that was
quantized. The two round differently where a value lies between two codes; one code apart here and there,
layer after layer, until their roundings are independent: then the difference of the two has twice the power
of either's error. An integer layer that is wrong is off by far more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compiler.compress.calibrate import Run
from compiler.frontend.model import Quantized
from compiler.support.errors import CheckError

_INDEPENDENT = 1.5
"""How much larger the difference of two independent errors of one size may be: the root of 2, and some."""

_LEAST = 1e-3
"""A part of the output's power that no quantization is blamed for: float32, summed in another order."""


@dataclass(frozen=True)
class Agreement:
    """An output of a library compared with what the quantized model gives, computed in float.

    `error` is the root of the mean squared difference over that of the output, `tolerance` the most that it
    may be for what quantization itself changed. `peak` is the greatest difference over the output's range.
    """

    name: str
    error: float
    tolerance: float
    peak: float

    @property
    def passed(self) -> bool:
        """Whether the library is as near as it should be."""
        return self.error <= self.tolerance

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.error:.2g} of its root mean square off the quantized model; up to "
            f"{self.tolerance:.2g} is allowed, by what that is off float"
        )


def compare_with_quantized(quantized: Quantized, run: Run, names: Sequence[str]) -> tuple[Agreement, ...]:
    """Run a library on the inputs that a quantized model carries along, and compare its outputs of floats.

    Raises:
        CheckError: it computes something else.
    """
    given = [run(list(inputs)) for inputs in quantized.inputs]
    found = []
    for position, name in enumerate(names):
        rows = zip(quantized.exact, quantized.rounded, given, strict=True)
        outputs = [tuple(np.asarray(each[position]) for each in row) for row in rows]
        if outputs and "float" in outputs[0][0].dtype.name:
            found.append(_agreement(name, outputs))
    failed = [str(each) for each in found if not each.passed]
    if failed:
        raise CheckError(
            f"the library does not compute what the quantized model computes: {'; '.join(failed)}; "
            "please report it (--no-check compiles regardless)"
        )
    return tuple(found)


def _agreement(name: str, outputs: Sequence[tuple[np.ndarray, ...]]) -> Agreement:
    exact, rounded, given = (np.concatenate([row[i].reshape(-1) for row in outputs]) for i in range(3))
    power = float(np.sqrt((exact.astype(np.float64) ** 2).mean())) or 1.0
    changed = float(np.sqrt(((rounded.astype(np.float64) - exact) ** 2).mean())) / power
    off = rounded.astype(np.float64) - given
    error = float(np.sqrt((off**2).mean())) / power
    reach = float(rounded.max() - rounded.min()) or 1.0
    return Agreement(name, error, max(_INDEPENDENT * changed, _LEAST), float(np.abs(off).max()) / reach)
