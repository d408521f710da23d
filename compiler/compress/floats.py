"""16-bit floating point: fewer bits without codes or scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.compress.blocks import finite
from compiler.compress.scheme import Float
from compiler.support.dtypes import numpy_dtype


@dataclass(frozen=True, eq=False)
class FloatGrid:
    """The finite values of a 16-bit floating-point type; a code is the value itself, in that type."""

    kind: Float
    notes: tuple[str, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of a code."""
        return numpy_dtype(self.kind.dtype)

    @property
    def largest(self) -> float:
        """The greatest finite value."""
        # For bfloat16: eight bits of mantissa, all ones, at float32's greatest exponent.
        return 65504.0 if self.kind.dtype == "float16" else float((2 - 2**-7) * 2.0**127)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return `values` rounded half to even; what is too large for the type becomes its greatest value.

        Raises:
            InputError: a value is NaN or infinite.
        """
        return np.asarray(np.clip(finite(values), -self.largest, self.largest), self.dtype)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the values of `codes` as float32."""
        return codes.astype(np.float32)


def float_grid(values: np.ndarray, kind: Float) -> FloatGrid:
    """Return the grid of the type `kind`, with a note where some of `values` are too large for it.

    Raises:
        InputError: a value is NaN or infinite, or there is none.
    """
    array, grid = finite(values), FloatGrid(kind)
    count = int((np.abs(array) > grid.largest).sum())
    if not count:
        return grid
    return FloatGrid(kind, (f"{count} of {array.size} values are beyond {grid.largest:g} and are cut to it",))
