"""Powers of two and zero: weights whose products are shifts.

Miyashita et al., "Convolutional Neural Networks using Logarithmic Data Representation", 2016, with the
rounding of Zhou et al., "Incremental Network Quantization", ICLR 2017: to the power of two that is nearest
in value, up from halfway.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compiler.compress.blocks import WHOLE, Blocks, finite
from compiler.compress.scheme import Log2

LEAST_EXPONENT = -126
"""The exponent of the least normal float32."""


@dataclass(frozen=True, eq=False)
class PowerGrid:
    """The values 0 and ``sign(code) * 2**(exponent + |code|)``, for codes up to ``log2.highest``.

    A kernel sums ``x << |code|`` with the sign of the code and multiplies once by ``2**exponent``.
    `exponent` (int32) has the shape of the parameters of `blocks`.
    """

    log2: Log2
    exponent: np.ndarray
    blocks: Blocks = WHOLE
    notes: tuple[str, ...] = ()

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the codes (int8) of the nearest values.

        Raises:
            InputError: a value is NaN or infinite.
        """
        array = finite(values)
        below = self.blocks.spread(self.exponent, array.shape)
        size = np.clip(nearest_exponent(array) - below, 1, self.log2.highest)
        # Halfway from zero to the least power.
        size = np.where(np.abs(array) < np.ldexp(np.float32(1), below), 0, size)
        return np.asarray(np.where(array < 0, -size, size), np.int8)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the values of `codes` as float32."""
        size = np.abs(codes.astype(np.int32))
        powers = np.ldexp(np.float32(1), self.blocks.spread(self.exponent, codes.shape) + size)
        return np.asarray(np.sign(codes).astype(np.float32) * powers, np.float32)


def nearest_exponent(values: np.ndarray) -> np.ndarray:
    """Return k (int32) for which ``2**k`` is nearest to each float32 ``|value|``, the greater of two.

    With ``|value| = m * 2**e``, 0.5 <= m < 1, the middle between the neighbours is ``0.75 * 2**e``. For
    zero the result means nothing.
    """
    fraction, exponent = np.frexp(values)
    return np.asarray(np.where(np.abs(fraction) >= 0.75, exponent, exponent - 1), np.int32)


def power_grid(values: np.ndarray, log2: Log2, blocks: Blocks = WHOLE) -> PowerGrid:
    """Return the grid whose greatest power is the one nearest to the largest of `values`, block by block.

    That power is ``floor(log2(4 / 3 * max|value|))``, equation 3 of Zhou et al.

    Raises:
        InputError: a value is NaN or infinite, or there is none.
    """
    largest = blocks.reduce(np.maximum, np.abs(finite(values)))
    top = np.where(largest > 0, nearest_exponent(largest), 0)
    # 2**128 is no float32, though the largest float32 is nearer to it than to 2**127.
    exponent = np.clip(top, LEAST_EXPONENT + log2.highest, 127) - log2.highest
    return PowerGrid(log2, np.asarray(exponent, np.int32), blocks)
