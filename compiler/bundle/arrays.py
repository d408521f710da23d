"""Arrays as ``.npy`` bytes, without pickle, bfloat16 included."""

from __future__ import annotations

import io

import numpy as np

from compiler.support.dtypes import AS_BITS, numpy_dtype
from compiler.support.errors import BundleError


def to_npy(array: np.ndarray) -> bytes:
    """Return `array` as the bytes of a ``.npy`` file, in C order."""
    bits = AS_BITS.get(array.dtype.name)
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
    if array.dtype != np.dtype(AS_BITS.get(dtype, dtype)):
        raise BundleError(f"'{where}': expected elements of type {dtype}, got {array.dtype}")
    return array.view(wanted)
