"""Constants as numpy arrays, for passes that compute with weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax


def array_of(expr: Any) -> np.ndarray | None:
    """Return the value of a constant, or None for anything else."""
    return expr.value.numpy() if isinstance(expr, tvm.ir.GenericConst) else None


def number_of(expr: Any) -> Any:
    """Return the number that a constant tensor of one element is, or None for anything else."""
    value = array_of(expr)
    return None if value is None or value.size != 1 else value.reshape(()).item()


def scalar_of(expr: Any) -> float | None:
    """Return the number that a constant scalar expression is, such as a bound of a clip, or None."""
    value = getattr(expr, "value", expr)
    value = getattr(value, "value", value)
    return float(value) if isinstance(value, (int, float)) else None


def constant(value: np.ndarray) -> Any:
    """Return `value` as a contiguous constant."""
    return relax.const(np.asarray(value, order="C"), str(value.dtype))


def channel_vector(value: np.ndarray, rank: int, axis: int) -> np.ndarray | None:
    """Return `value` as a vector along `axis` of a tensor of `rank` dims, or None if it varies elsewhere.

    `value` broadcasts against that tensor from the right, as in numpy. A scalar becomes a vector of one.
    """
    shape = (1,) * (rank - value.ndim) + value.shape
    if len(shape) != rank or any(extent != 1 for i, extent in enumerate(shape) if i != axis):
        return None
    return value.reshape(-1)
