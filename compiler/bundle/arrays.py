"""Arrays as ``.npy`` bytes, without pickle, bfloat16 included."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from compiler.support.errors import BundleError

_AS_BITS = {"bfloat16": "uint16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}
"""Types that numpy does not have, and what carries their bits in a ``.npy`` file."""


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the numpy dtype of that name; ``ml_dtypes`` supplies those that numpy lacks.

    Raises:
        TypeError: there is no such dtype, or its elements are not plain numbers.
    """
    if name in _AS_BITS:
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return found
    dtype = np.dtype(name)
    if dtype.kind not in "biuf" or dtype.name != name:
        raise TypeError(f"expected the name of a number type, got '{name}'")
    return dtype


def to_npy(array: np.ndarray) -> bytes:
    """Return `array` as the bytes of a ``.npy`` file, in C order."""
    bits = _AS_BITS.get(array.dtype.name)
    plain = np.asarray(array, order="C")
    out = io.BytesIO()
    np.lib.format.write_array(out, plain.view(bits) if bits else plain, allow_pickle=False)
    return out.getvalue()


def from_npy(data: bytes, dtype: str, where: str) -> np.ndarray:
    """Read the bytes of a ``.npy`` file that holds elements of `dtype`.

    Raises:
        BundleError: the bytes are no such file; `where` names it.
    """
    wanted = numpy_dtype(dtype)
    try:
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (ValueError, TypeError, EOFError, OverflowError, MemoryError, SyntaxError) as error:
        raise BundleError(f"'{where}' is not a readable .npy file ({error})") from error
    if array.dtype != np.dtype(_AS_BITS.get(dtype, dtype)):
        raise BundleError(f"'{where}': expected elements of type {dtype}, got {array.dtype}")
    return array.view(wanted)
