"""Binary numbers: the sign times a scale (Rastegari et al., "XNOR-Net", ECCV 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compiler.compress.blocks import WHOLE, Blocks, finite
from compiler.compress.scheme import Binary


@dataclass(frozen=True, eq=False)
class SignGrid:
    """The values ``-scale`` and ``scale``, with codes -1 and 1; zero becomes 1.

    `scale` (float32, not negative) has the shape of the parameters of `blocks`.
    """

    binary: Binary
    scale: np.ndarray
    blocks: Blocks = WHOLE
    notes: tuple[str, ...] = ()

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the codes (int8): the signs of `values`.

        Raises:
            InputError: a value is NaN or infinite.
        """
        return np.asarray(np.where(finite(values) < 0, -1, 1), np.int8)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the values of `codes` as float32."""
        return np.asarray(codes.astype(np.float32) * self.blocks.spread(self.scale, codes.shape))


def sign_grid(values: np.ndarray, binary: Binary, blocks: Blocks = WHOLE) -> SignGrid:
    """Return the grid nearest to `values` in the sense of least squares, block by block.

    Its scale is the mean of ``|value|``, equation 6 of Rastegari et al.; that of zeros is zero.

    Raises:
        InputError: a value is NaN or infinite, or there is none.
    """
    return SignGrid(binary, blocks.mean(np.abs(finite(values))).astype(np.float32), blocks)
