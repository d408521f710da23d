"""What kernels ask of tensors and their extents."""

from __future__ import annotations

from typing import Any

from tvm import tirx


def at(tensor: Any, *index: Any) -> Any:
    """Return the element of `tensor` at `index`: a subscript takes no starred one in Python 3.10."""
    return tensor[index]


def is_one(extent: Any) -> bool:
    """Tell whether `extent` is known to be 1."""
    return isinstance(extent, (int, tirx.IntImm)) and int(extent) == 1
