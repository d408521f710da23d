"""Linear quantization of numpy arrays: the numbers that every kernel has to reproduce.

A grid is the set of values that codes stand for. This one is ``value = scale * (code - zero_point)``, as
in Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018, equation 1. All arithmetic on values is float32; rounding is half to even.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compiler.compress.blocks import WHOLE, Blocks, finite
from compiler.compress.scheme import Linear
from compiler.support.errors import InputError

LEAST_SCALE = 2.0**-63
"""No scale is smaller, so that the product of two scales is still a normal float32."""

MOST = 2.0**126
"""No range reaches further, so that every code stands for a finite float32."""


@dataclass(frozen=True, eq=False)
class LinearGrid:
    """The values ``scale * (code - zero_point)`` for codes from ``linear.lowest`` to ``linear.highest``.

    `scale` (float32, positive and normal) and `zero_point` (int32, itself a code) have the shape of the
    parameters of `blocks`; see `compiler.compress.blocks`. `notes` says where a range was not usable.
    """

    linear: Linear
    scale: np.ndarray
    zero_point: np.ndarray
    blocks: Blocks = WHOLE
    notes: tuple[str, ...] = ()

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the codes nearest to `values`, saturating, in the dtype ``linear.storage``.

        ``clip(round_half_even(value / scale) + zero_point)``, as ONNX defines QuantizeLinear.

        Raises:
            InputError: a value is NaN or infinite.
        """
        array = finite(values)
        scale, zero = (self.blocks.spread(p, array.shape) for p in (self.scale, self.zero_point))
        # A quotient beyond float32 is infinite, and saturates like any other.
        with np.errstate(over="ignore"):
            steps = np.asarray(array / scale)
        np.rint(steps, out=steps)
        # Sums of a code and what is within the limits are exact in float32; larger ones saturate anyway.
        steps += zero.astype(np.float32)
        np.clip(steps, self.linear.lowest, self.linear.highest, out=steps)
        return steps.astype(self.linear.storage)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the values of `codes` as float32."""
        scale, zero = (self.blocks.spread(p, codes.shape) for p in (self.scale, self.zero_point))
        return np.asarray((codes.astype(np.int32) - zero).astype(np.float32) * scale)

    @property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest value that a code stands for, as float32, one a block."""
        lowest, highest = self.linear.lowest - self.zero_point, self.linear.highest - self.zero_point
        return np.asarray(lowest * self.scale, np.float32), np.asarray(highest * self.scale, np.float32)


def grid_of_range(
    low: np.ndarray | float, high: np.ndarray | float, linear: Linear, blocks: Blocks = WHOLE
) -> LinearGrid:
    """Return the grid that spans the values from `low` to `high` (a number, or one a block).

    The range is widened to hold zero, and zero is a value of the grid exactly: padding and ReLU depend on
    it. An empty range gets the scale 1, one too narrow for float32 arithmetic `LEAST_SCALE`, and one beyond
    `MOST` ends there.

    Raises:
        InputError: a bound is NaN or infinite, or `low` is above `high`.
    """
    least, most = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if not (np.isfinite(least).all() and np.isfinite(most).all() and (least <= most).all()):
        raise InputError(f"expected a finite range from low to high, got {low} to {high}")
    wide = np.maximum(-least, most) > MOST
    least, most = np.clip(least, -MOST, 0), np.clip(most, 0, MOST)
    if linear.symmetric:
        most = np.maximum(-least, most)
        least = -most
    wanted = (most - least) / (linear.highest - linear.lowest)
    empty, narrow = wanted == 0, (wanted > 0) & (wanted < LEAST_SCALE)
    scale = np.where(empty, 1.0, np.maximum(wanted, LEAST_SCALE)).astype(np.float32)
    if linear.symmetric:
        zero = np.full(scale.shape, (linear.lowest + linear.highest) // 2)
    else:
        # Jacob et al., section 3: the code nearest to where zero falls.
        zero = np.clip(np.rint(linear.lowest - least / scale), linear.lowest, linear.highest)
    notes = [
        *_note(empty, "zero; the scale 1 stands for the empty range"),
        *_note(narrow, "so close to zero that float32 cannot scale them; they become zero"),
        *_note(wide, f"in a range that ends beyond {MOST:.3g}; it is cut off there"),
    ]
    return LinearGrid(linear, scale, np.asarray(zero, np.int32), blocks, tuple(notes))


def _note(where: np.ndarray, what: str) -> tuple[str, ...]:
    """Say of how many blocks `what` is true."""
    count = int(where.sum())
    which = "" if where.size == 1 else f" of {count} of {where.size}"
    return (f"all values{which} are {what}",) if count else ()


def grid_of_values(values: np.ndarray, linear: Linear, blocks: Blocks = WHOLE) -> LinearGrid:
    """Return the grid that spans all of `values`, block by block.

    Raises:
        InputError: a value is NaN or infinite, or there is none.
    """
    array = finite(values)
    return grid_of_range(blocks.reduce(np.minimum, array), blocks.reduce(np.maximum, array), linear, blocks)
