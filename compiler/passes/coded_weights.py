"""Weights that a graph computes from constant codes, found and told as codes and scales.

    dequantize(codes, scale, 0)                               a scale for all, or for each index of an axis
    reshape, permute_dims, strided_slice, ... of that         so groups of weights get scales of their own

What is found does not depend on how it was written: operators that only move values move codes and scales
alike, and which weights share a scale is then seen in the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from compiler.ir.constants import array_of, constant
from compiler.ir.rewriter import is_call, static_shape
from compiler.passes.fold_constants import permuted, sliced

_RESHAPES = ("relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.flatten")


@dataclass(frozen=True)
class CodedWeights:
    """The values ``codes * scale``: `codes` int8, `scale` float32, which broadcasts against them.

    Codes may also be 16-bit floats; their scale is 1.
    """

    codes: np.ndarray
    scale: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """The float32 values."""
        return np.asarray(self.codes * self.scale, np.float32)

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> CodedWeights:
        """Return the weights with their values moved or chosen by `move`."""
        spread = np.broadcast_to(self.scale, self.codes.shape)
        return CodedWeights(np.ascontiguousarray(move(self.codes)), move(spread))


_HIDDEN = "kiln.codes"


def hidden(weights: CodedWeights, ty: Any) -> Any:
    """Return `weights` as an expression of the type `ty` that no pass folds; `coded_weights` knows it."""
    return relax.op.call_pure_packed(
        _HIDDEN, constant(weights.codes), constant(np.array(weights.scale)), ty_args=ty
    )


def coded_weights(expr: Any, definition: Callable[[Any], Any]) -> CodedWeights | None:
    """Return the coded weights that `expr` is, or None; `definition` finds what a variable is bound to."""
    call = definition(expr)
    if is_call(call, "relax.dequantize"):
        return _dequantized(call)
    if is_call(call, "relax.call_pure_packed") and str(call.args[0].global_symbol) == _HIDDEN:
        codes, scale = (array_of(each) for each in call.args[1:])
        return None if codes is None or scale is None else CodedWeights(codes, scale)
    if not is_call(call, *_RESHAPES, "relax.permute_dims", "relax.strided_slice"):
        return None
    source, extents = coded_weights(call.args[0], definition), static_shape(expr)
    if source is None or extents is None:
        return None
    if is_call(call, "relax.permute_dims"):
        return source.moved(lambda x: permuted(call, x))
    if is_call(call, *_RESHAPES):
        return source.moved(lambda x: x.reshape(extents))
    if sliced(call, source.codes[:0]) is None:
        return None
    return source.moved(lambda x: np.asarray(sliced(call, x)))


def _dequantized(call: Any) -> CodedWeights | None:
    codes, scale, zero = (array_of(argument) for argument in call.args)
    if codes is None or scale is None or zero is None or codes.dtype != np.int8 or zero.any():
        return None
    shape = [1] * codes.ndim
    if scale.size > 1:
        shape[int(call.attrs.axis)] = -1
    return CodedWeights(codes, scale.astype(np.float32).reshape(shape))


@dataclass(frozen=True)
class CodedMatrix:
    """Codes (K, N), int8, of which `group` neighbours along K share one of the scales (ceil(K / group), N).

    A group of 0 is all of K, and scales are (1, N).
    """

    codes: np.ndarray
    scale: np.ndarray
    group: int


def matrix_of(codes: np.ndarray, scale: np.ndarray) -> CodedMatrix:
    """Return the matrix of `codes` (K, N) with the longest groups of rows that share their `scale` (K, N)."""
    changes = np.flatnonzero((scale[1:] != scale[:-1]).any(1)) + 1
    if not changes.size:
        return CodedMatrix(codes, np.array(scale[:1]), 0)
    group = math.gcd(*changes.tolist())
    return CodedMatrix(codes, np.array(scale[::group]), group)
