"""To and from the blocked layout: NCHW <-> NCHW[c], c channels of one vector side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import te, tirx


def pack(x: Any, block: int) -> Any:
    """Return `x` (N, C, H, W) as (N, ceil(C / block), H, W, block), zeros in the lanes past C."""
    n, channels, height, width = x.shape
    blocks = -(-int(channels) // block)

    def value(b: Any, cb: Any, h: Any, w: Any, v: Any) -> Any:
        channel = cb * block + v
        if int(channels) % block == 0:
            return x[b, channel, h, w]
        return tirx.if_then_else(channel < channels, x[b, channel, h, w], tirx.const(0, x.dtype))

    return te.compute((n, blocks, height, width, block), value, name="pack")


def unpack(x: Any, channels: int) -> Any:
    """Return `x` (N, CB, H, W, c) as (N, channels, H, W)."""
    n, _, height, width, block = x.shape
    return te.compute(
        (n, channels, height, width), lambda b, c, h, w: x[b, c // block, h, w, c % block], name="unpack"
    )


def pack_array(x: np.ndarray, block: int, fill: float = 0.0) -> np.ndarray:
    """Return the array `x` (N, C, H, W) in the blocked layout, `fill` in the lanes past C."""
    n, channels, height, width = x.shape
    blocks = -(-channels // block)
    padded = np.pad(x, ((0, 0), (0, blocks * block - channels), (0, 0), (0, 0)), constant_values=fill)
    return np.ascontiguousarray(padded.reshape(n, blocks, block, height, width).transpose(0, 1, 3, 4, 2))
