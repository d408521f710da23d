"""Values between integer layers: what they are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compiler.support.dtypes import SHIFT


@dataclass(frozen=True)
class Grid:
    """What the bytes `data` stand for: `scale` times (byte - `zero`)."""

    data: Any
    scale: float
    zero: int

    @property
    def shift(self) -> int:
        """What makes the bytes count from zero on.

        Sums of products and floats are made of bytes that count so, whichever sign the target's are stored
        with: what floats round is then the same number on every target, and so is each byte that follows.
        """
        return SHIFT[str(self.data.ty.dtype), "uint8"]

    @property
    def shifted_zero(self) -> int:
        """The zero point of bytes that count from zero on."""
        return self.zero + self.shift


@dataclass(frozen=True)
class Value:
    """The sum of tensors times factors plus an offset, clipped to [low, high]; factors and offset broadcast.

    The sum is never further from zero than `reach`. `grid` is set where the value is that of bytes.
    """

    terms: tuple[tuple[Any, np.ndarray], ...]
    offset: np.ndarray
    reach: float
    low: float = -np.inf
    high: float = np.inf
    grid: Grid | None = None

    @classmethod
    def unknown(cls, tensor: Any, reach: float = np.inf) -> Value:
        """Return a value that is nothing but a tensor of floats."""
        return cls(((tensor, np.ones((), "float32")),), np.zeros((), "float32"), reach)

    @property
    def bounded(self) -> bool:
        """Tell whether the value is clipped."""
        return self.low > -np.inf or self.high < np.inf

    @property
    def furthest(self) -> float:
        """How far from zero the value may be once it is clipped."""
        return max(min(self.reach, max(abs(self.low), abs(self.high))), self.low, -self.high)

    def added(self, amount: np.ndarray) -> Value:
        """Return the value, which must not be bounded, plus constants."""
        reach = self.reach + float(abs(amount).max())
        return replace(self, offset=self.offset + amount, reach=reach, grid=None)

    def plus(self, other: Value) -> Value:
        """Return the sum of two values, which must not be bounded."""
        return Value((*self.terms, *other.terms), self.offset + other.offset, self.reach + other.reach)

    def scaled(self, factor: np.ndarray) -> Value:
        """Return the value, which must not be bounded, times constants."""
        terms = tuple((tensor, own * factor) for tensor, own in self.terms)
        return Value(terms, self.offset * factor, self.reach * float(abs(factor).max()))


def on_grid(grid: Grid) -> Value:
    """Return the value that bytes stand for."""
    scale = np.array(grid.scale, "float32")
    offset = np.array(-grid.shifted_zero * float(scale), "float32")
    return Value(((grid.data, scale),), offset, 511 * grid.scale, grid=grid)


@dataclass(frozen=True)
class Levels:
    """What a value is rounded to: bytes of `dtype`, of which `zero` stands for 0, `step` apart."""

    step: float
    zero: int
    dtype: str

    def is_grid_of(self, value: Value) -> bool:
        """Tell whether `value` is that of bytes which are these levels already."""
        grid = value.grid
        return grid is not None and (grid.scale, grid.zero, str(grid.data.ty.dtype)) == (
            self.step,
            self.zero,
            self.dtype,
        )

    def bounds(self, value: Value, far: float) -> tuple[float, float]:
        """Return what to clip `value` to, in steps, before it is rounded to 32-bit integers.

        Bounds that the bytes cannot leave anyway need no clipping: rounding is monotonic. A value that may
        be more than `far` steps from zero is clipped to the bytes' own.
        """
        info = np.iinfo(self.dtype)
        least, most = float(info.min - self.zero), float(info.max - self.zero)
        low, high = value.low / self.step, value.high / self.step
        low, high = (low if low > least else -np.inf), (high if high < most else np.inf)
        if value.reach / self.step > far:
            low, high = max(low, least), min(high, most)
        return low, high
