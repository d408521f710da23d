"""From a quantizer to a grid: what the scheme says of an array, made numbers."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from compiler.compress.blocks import Blocks
from compiler.compress.floats import FloatGrid, float_grid
from compiler.compress.numerics import grid_of_range, grid_of_values
from compiler.compress.observers import Observer
from compiler.compress.powers import power_grid
from compiler.compress.ranges import Method, seen
from compiler.compress.scheme import Binary, Float, Linear, Log2, Quantizer
from compiler.compress.signs import SignGrid, sign_grid
from compiler.support.errors import UsageError


class Grid(Protocol):
    """The values that codes stand for."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about these values."""

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the codes nearest to `values`."""

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the values of `codes` as float32."""


def weight_grid(values: np.ndarray, quantizer: Quantizer, channel_axis: int = 0, group_axis: int = 1) -> Grid:
    """Return the grid of a weight.

    Args:
        values: the weight, any float type.
        quantizer: what it becomes.
        channel_axis: the axis of output channels.
        group_axis: the axis that a product sums over, along which groups are formed.

    Raises:
        InputError: a value is NaN or infinite, or there is none.
    """
    if isinstance(quantizer, Float):
        return float_grid(values, quantizer)
    blocks = Blocks(quantizer.granularity, channel_axis, group_axis)
    if isinstance(quantizer, Log2):
        return power_grid(values, quantizer, blocks)
    if isinstance(quantizer, Binary):
        return sign_grid(values, quantizer, blocks)
    return grid_of_values(values, quantizer, blocks)


def activation_grid(observer: Observer, quantizer: Quantizer, method: Method) -> Grid:
    """Return the grid of an activation, from what was observed of it.

    Raises:
        InputError: nothing was observed.
        UsageError: activations cannot be quantized so.
    """
    if isinstance(quantizer, Float):
        return FloatGrid(quantizer)
    if isinstance(quantizer, Binary):
        seen(observer)
        return SignGrid(quantizer, np.asarray(observer.mean_magnitude, np.float32))
    if isinstance(quantizer, Linear):
        return grid_of_range(*method.range(observer, quantizer), quantizer)
    raise UsageError(f"expected linear, binary or 16-bit float activations, got {quantizer}")
