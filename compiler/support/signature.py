"""Names, shapes and dtypes of a model's inputs and outputs.

Plain data: written into the manifest by the compiler, read back on a board where neither TVM nor
torch exists.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Dim = int | str
"""A fixed extent, or the name of a symbolic dimension."""

LEAF = "*"
"""Where a tensor stands in `Signature.output_tree`."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: `shape` in elements, `dtype` by numpy's name (``float32``, ``bfloat16``)."""

    name: str
    shape: tuple[Dim, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name}: {'x'.join(map(str, self.shape)) or 'scalar'} {self.dtype}"


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives.

    `outputs` is the flat list of tensors; `output_tree` says how they nest: ``"*"`` is a tensor,
    a list or ``{"tuple": [...]}`` a sequence, ``{"dict": {name: ...}}`` a mapping. `dims` holds the
    inclusive range of each symbolic dimension; an upper bound of ``None`` is unbounded.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    output_tree: Any = LEAF
    dims: dict[str, tuple[int, int | None]] = field(default_factory=dict)
