"""Names of dtypes as numpy has them, with those that it lacks."""

from __future__ import annotations

from typing import Any

import numpy as np

AS_BITS = {"bfloat16": "uint16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}
"""Types that numpy does not have, and what carries their bits in a ``.npy`` file."""


SHIFT = {("uint8", "uint8"): 0, ("int8", "int8"): 0, ("uint8", "int8"): -128, ("int8", "uint8"): 128}
"""What is added to codes of one type of bytes, and to their zero point, to have them in the other."""


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the numpy dtype of that name; ``ml_dtypes`` supplies those that numpy lacks.

    Raises:
        TypeError: there is no such dtype, or its elements are not plain numbers.
    """
    if name in AS_BITS:
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return found
    dtype = np.dtype(name)
    if dtype.kind not in "biuf" or dtype.name != name:
        raise TypeError(f"expected the name of a number type, got '{name}'")
    return dtype
