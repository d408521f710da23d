"""Codes of 4 bits and of 1 bit, packed into bytes along the last axis."""

from __future__ import annotations

import numpy as np


def pack_nibbles(codes: np.ndarray) -> np.ndarray:
    """Pack codes of at most 4 bits (int8 or uint8), two a byte: the first in the low half.

    before: (..., n) codes
    after:  (..., (n + 1) // 2) uint8, the last half zero where n is odd
    """
    nibbles = codes.view(np.uint8) & 0xF
    if nibbles.shape[-1] % 2:
        nibbles = np.concatenate([nibbles, np.zeros_like(nibbles[..., :1])], axis=-1)
    return np.asarray(nibbles[..., ::2] | (nibbles[..., 1::2] << 4), np.uint8)


def unpack_nibbles(packed: np.ndarray, length: int, *, signed: bool) -> np.ndarray:
    """Undo `pack_nibbles` for a last axis of `length`; int8 if `signed`, else uint8."""
    nibbles = np.stack([packed & 0xF, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)[..., :length]
    # Flipping bit 3 and taking 8 away extends the sign.
    return ((nibbles ^ 8).astype(np.int8) - np.int8(8)) if signed else nibbles


def pack_signs(codes: np.ndarray) -> np.ndarray:
    """Pack codes -1 and 1 (int8), eight a byte, the first in the lowest bit; a set bit is 1.

    before: (..., n) codes
    after:  (..., (n + 7) // 8) uint8, unused bits clear
    """
    return np.packbits(codes > 0, axis=-1, bitorder="little")


def unpack_signs(packed: np.ndarray, length: int) -> np.ndarray:
    """Undo `pack_signs` for a last axis of `length`."""
    bits = np.unpackbits(packed, axis=-1, count=length, bitorder="little")
    return np.asarray(np.where(bits, 1, -1), np.int8)
