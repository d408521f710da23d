"""Weights of fewer bits than a float32, and the floats that kernels make of them in registers.

A matrix (K, N) of codes becomes words (ceil(N / c), K / p, c), c columns of one panel side by side as in
`compiler.passes.kernels.dense`; each 32-bit word holds p neighbouring codes of one column, the first in its
lowest bits. One load gives p vectors of weights, and what takes a code out are shifts of whole vectors:

| codes | bits | as a float |
|---|---|---|
| integers | 2, 4, 8 | shift left, shift right (which extends the sign), convert |
| powers of two, zero | 4: sign, exponent | shift to a float's sign and exponent; zero where there is none |
| signs | 1 | shift to the place of a float's sign, beside the exponent of 1.0 |

16-bit floats are not packed: there are (ceil(N / c), K, c) of them, and one or two instructions make float32
of a vector of them.

(Miyashita et al., "Convolutional Neural Networks using Logarithmic Data Representation", 2016; Rastegari et
al., "XNOR-Net", ECCV 2016. A float32 has its sign in bit 31 and its exponent, plus 127, in bits 23 to 30:
IEEE 754-2019, 3.4.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx

from compiler.passes.kernels.dense import pack_dense_weights
from compiler.passes.kernels.narrow import SHORT_FLOATS, widened

WORD = 32
PER_WORD = "kiln.codes_per_word"
"""The attribute of a block that decodes: how many codes a word holds."""

_ONE = 0x3F800000
"""The bits of 1.0."""
_BEFORE_ONE = 126
"""The biased exponent that is one less than that of 1.0."""
_POWER_BITS = 4


@dataclass(frozen=True)
class Coding:
    """How a code is written: `kind` is ``integer``, ``power``, ``sign`` or the name of a 16-bit float.

    `per` codes share a word.
    """

    kind: str
    bits: int
    per: int


def coding_of(codes: np.ndarray, group: int = 0) -> Coding:
    """Return the coding of fewest bits for `codes`, int8, of which none crosses a `group` along axis 0.

    Codes that are 16-bit floats stay what they are.
    """
    if str(codes.dtype) in SHORT_FLOATS:
        return Coding(str(codes.dtype), 16, 1)
    kind, bits = _kind_and_bits(codes)
    return Coding(kind, bits, math.gcd(group, WORD // bits))


def _kind_and_bits(codes: np.ndarray) -> tuple[str, int]:
    size = np.abs(codes.astype(np.int16))
    largest = int(size.max(initial=0))
    if (size == 1).all():
        return "sign", 1
    for bits in (2, 4):
        if largest < 1 << (bits - 1):
            return "integer", bits
    is_power = (size & (size - 1)) == 0
    return ("power", _POWER_BITS) if is_power.all() and largest <= 64 else ("integer", 8)


def pack_codes(codes: np.ndarray, coding: Coding, lanes: int) -> np.ndarray:
    """Return `codes` (K, N), int8, as int32 words (ceil(N / lanes), ceil(K / per), lanes).

    Codes past K and N are those of zero, or of one where a code is a sign. 16-bit floats keep their type.
    """
    if coding.kind in SHORT_FLOATS:
        return pack_dense_weights(codes, lanes)
    depth, outputs = codes.shape
    fields = np.pad(_fields(codes, coding), ((0, -depth % coding.per), (0, -outputs % lanes)))
    apart = fields.reshape(-1, coding.per, fields.shape[1])
    places = (np.arange(coding.per, dtype=np.uint32) * np.uint32(coding.bits))[:, None]
    words: np.ndarray = np.bitwise_or.reduce(apart << places, axis=1)
    panels = words.reshape(len(words), -1, lanes).transpose(1, 0, 2)
    return np.ascontiguousarray(panels).view(np.int32)


def _fields(codes: np.ndarray, coding: Coding) -> np.ndarray:
    """Return the bits of each code (uint32), those above them clear."""
    if coding.kind == "sign":
        return np.asarray(codes < 0, np.uint32)
    if coding.kind == "integer":
        return np.asarray(codes.astype(np.int32) & ((1 << coding.bits) - 1), np.uint32)
    # Of a power of two, frexp's exponent is one more than its logarithm; of zero it is zero.
    exponent = np.frexp(codes.astype(np.float32))[1]
    fields = exponent | np.where(codes < 0, 1 << (coding.bits - 1), 0)
    return fields.astype(np.uint32)


def decode(words: Any, coding: Coding, scale: Any | None = None, group: int = 0) -> Any:
    """Return the floats (panels, W * per, c) of `words` (panels, W, c), int32 or 16-bit floats.

    `scale` (panels, ceil(W * per / group), c), float32, has a factor for each `group` of rows of a panel;
    without it the floats are the codes.
    """
    panels, count, lanes = words.shape

    def value(panel: Any, k: Any, lane: Any) -> Any:
        made = _float(words[panel, k // coding.per, lane], k % coding.per, coding)
        return made if scale is None else made * scale[panel, k // group, lane]

    return te.compute(
        (panels, count * coding.per, lanes), value, name="decoded", attrs={PER_WORD: coding.per}
    )


def _float(word: Any, place: Any, coding: Coding) -> Any:
    """Return the code at `place` of `word` as a float32."""
    if coding.kind in SHORT_FLOATS:
        return widened(word)
    # The code to the top of the word: what is above it is lost.
    above = _int(WORD - coding.bits) - place.astype("int32") * coding.bits
    top = tirx.shift_left(word, above)
    if coding.kind == "integer":
        return tirx.shift_right(top, _int(WORD - coding.bits)).astype("float32")
    sign = tirx.bitwise_and(top, _int(-(1 << (WORD - 1))))
    if coding.kind == "sign":
        return tirx.reinterpret("float32", tirx.bitwise_or(sign, _int(_ONE)))
    exponent = tirx.bitwise_and(top, _int((1 << (coding.bits - 1)) - 1 << (WORD - coding.bits)))
    size = tirx.shift_right(exponent, _int(9 - coding.bits)) + _int(_BEFORE_ONE << 23)
    power = tirx.reinterpret("float32", tirx.bitwise_or(sign, size))
    return tirx.Select(exponent == _int(0), tirx.const(0, "float32"), power)


def _int(value: int) -> Any:
    return tirx.const(value, "int32")
