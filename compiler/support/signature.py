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


@dataclass(frozen=True, order=True)
class Levels:
    """What integers x stand for: `scale` * (x - `zero`).

    (B. Jacob and others, arXiv 1712.05877, equation 1.)
    """

    scale: float
    zero: int

    def real(self, integers: Any) -> Any:
        """Return what an array of integers stands for, float32."""
        return ((integers.astype("float64") - self.zero) * self.scale).astype("float32")

    def __str__(self) -> str:
        moved = f"(x {'+' if self.zero < 0 else '-'} {abs(self.zero)})" if self.zero else "x"
        return f"{self.scale:.9g} * {moved}"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: `shape` in elements, `dtype` by numpy's name (``float32``, ``bfloat16``).

    `levels` tells what its integers stand for, where a quantized model takes or gives such.
    """

    name: str
    shape: tuple[Dim, ...]
    dtype: str
    levels: Levels | None = None

    def __str__(self) -> str:
        stands = "" if self.levels is None else f", {self.levels}"
        return f"{self.name}: {'x'.join(map(str, self.shape)) or 'scalar'} {self.dtype}{stands}"


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
