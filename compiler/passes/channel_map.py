"""Which channel of which tensor each channel of a value is.

Concatenation, slicing and shuffling of channels only say where a channel comes from. What does so is a
`ChannelMap`, and a map of a map is a map again: nothing moves until some other operator reads the last one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import relax, sym, tirx

from compiler.ir.rewriter import is_call


@dataclass(frozen=True)
class ChannelMap:
    """The channels of a value (N, ..., H, W): the axes of `picks`, but its last one, are those at the dots.

    The last axis of `picks` holds the number of one of `sources`, which are tensors (N, C, H, W) or blocked,
    and a channel of it. `joins` counts the concatenations that follow one another in the map.
    """

    sources: tuple[Any, ...]
    picks: np.ndarray
    joins: int = 0

    def picked(self, axis: int, selection: slice) -> ChannelMap:
        """Return the map of a part of it along `axis`, without the sources that this leaves unused."""
        picks = self.picks[(slice(None),) * axis + (selection,)]
        used = sorted(set(picks[..., 0].flat))
        numbers = np.searchsorted(used, picks[..., 0])
        return replace(
            self, sources=tuple(self.sources[number] for number in used), picks=_pairs(numbers, picks[..., 1])
        )

    def reshaped(self, axes: Sequence[int]) -> ChannelMap:
        """Return the map with its channels along other `axes`."""
        return replace(self, picks=self.picks.reshape(*axes, 2))

    def permuted(self, order: Sequence[int]) -> ChannelMap:
        """Return the map with its axes in another `order`."""
        return replace(self, picks=self.picks.transpose(*order, len(order)))

    def whole_blocks(self, channels: Sequence[int], lanes: int) -> list[Blocks] | None:
        """Return the blocks of `lanes` channels that make up the map; None if some of them are not whole.

        `channels` are the numbers of channels of the sources. What lies past the last one of a source may lie
        past the last one of the map, too.
        """
        found: list[Blocks] = []
        for start in range(0, len(self.picks), lanes):
            block = self.picks[start : start + lanes]
            source, first = (int(number) for number in block[0])
            ends = len(block) == lanes or first + len(block) == channels[source]
            run = _pairs(np.full(len(block), source), np.arange(first, first + len(block)))
            if first % lanes or not ends or not np.array_equal(block, run):
                return None
            found.append(Blocks(source, first // lanes, first // lanes + 1))
        return _merged(found)


@dataclass(frozen=True)
class Blocks:
    """The blocks `first` to `end`, without the latter, of the source with the number `source`."""

    source: int
    first: int
    end: int


def _merged(blocks: Sequence[Blocks]) -> list[Blocks]:
    """Return `blocks` with those that follow one another as one."""
    merged = [blocks[0]]
    for block in blocks[1:]:
        last = merged[-1]
        if (last.source, last.end) == (block.source, block.first):
            merged[-1] = replace(last, end=block.end)
        else:
            merged.append(block)
    return merged


def whole(source: Any, channels: int) -> ChannelMap:
    """Return the map of all `channels` of `source`."""
    return ChannelMap((source,), _pairs(np.zeros(channels, int), np.arange(channels)))


def joined(parts: Sequence[ChannelMap], axis: int) -> ChannelMap:
    """Return the map of `parts` one after the other along `axis`."""
    sources = tuple(dict.fromkeys(source for part in parts for source in part.sources))
    numbers = [np.array([sources.index(source) for source in part.sources]) for part in parts]
    picks = [
        _pairs(number[part.picks[..., 0]], part.picks[..., 1])
        for number, part in zip(numbers, parts, strict=True)
    ]
    return ChannelMap(sources, np.concatenate(picks, axis), 1 + max(part.joins for part in parts))


def _pairs(sources: np.ndarray, channels: np.ndarray) -> np.ndarray:
    return np.stack([sources, channels], axis=-1)


Operand = Callable[[Any], ChannelMap | None]
"""Tells the map of an operand, which may be all of a tensor; None where it cannot be part of a map."""


def map_of(expr: Any, result: Any, operand: Operand) -> ChannelMap | None:
    """Return the map that `expr` of type `result` is, or None if it is none."""
    if isinstance(expr, relax.TupleGetItem):
        return _field(expr, operand)
    maker = _MAKERS.get(expr.op.name) if is_call(expr, *_MAKERS) else None
    return None if maker is None else maker(expr, result, operand)


def _concat(call: Any, result: Any, operand: Operand) -> ChannelMap | None:
    axis = _channel_axis(call.attrs.axis, result)
    if axis is None or not isinstance(call.args[0], relax.Tuple):
        return None
    parts = [operand(field) for field in call.args[0].fields]
    known = [part for part in parts if part is not None]
    return joined(known, axis) if len(known) == len(parts) else None


def _slice(call: Any, result: Any, operand: Operand) -> ChannelMap | None:
    data, *ranges = call.args
    if not all(isinstance(values, relax.Tuple) and len(values.fields) == 1 for values in ranges):
        return None
    axis, *bounds = (values.fields[0] for values in ranges)
    if not all(isinstance(bound, tirx.IntImm) for bound in (axis, *bounds)):
        return None
    number, channels, selection = _channel_axis(axis, result), operand(data), slice(*map(int, bounds))
    if number is None or channels is None or (selection.step or 1) < 1:
        return None
    return channels.picked(number, selection)


def _split(call: Any, result: Any, operand: Operand) -> ChannelMap | None:
    """Return the map of what is split: `_field` takes the parts."""
    channels = operand(call.args[0])
    return channels if _channel_axis(call.attrs.axis, result.fields[0]) == 0 else None


def _field(item: Any, operand: Operand) -> ChannelMap | None:
    """Return the map of a field of what `_split` knows."""
    channels = operand(item.tuple_value)
    if channels is None:
        return None
    sizes = [int(field.shape[1]) for field in item.tuple_value.ty.fields]
    start = sum(sizes[: item.index])
    return channels.picked(0, slice(start, start + sizes[item.index]))


def _reshape(call: Any, result: Any, operand: Operand) -> ChannelMap | None:
    channels = operand(call.args[0])
    if channels is None or not isinstance(result.shape, relax.ShapeExpr) or result.ndim < 4:
        return None
    image, *axes, rows, columns = result.shape
    before = channels.sources[0].ty.shape  # blocked or not, the first, third and fourth axis are the same
    if not all(
        map(sym.Analyzer().can_prove_equal, (image, rows, columns), (before[0], before[2], before[3]))
    ):
        return None
    counts = [int(axis) for axis in axes if isinstance(axis, tirx.IntImm)]
    if len(counts) != len(axes) or 2 * math.prod(counts) != channels.picks.size:
        return None
    return channels.reshaped(counts)


def _permute(call: Any, result: Any, operand: Operand) -> ChannelMap | None:
    channels, rank = operand(call.args[0]), result.ndim
    if channels is None or call.attrs.axes is None or rank < 4:
        return None
    first, *order, rows, columns = (int(axis) % rank for axis in call.attrs.axes)
    if (first, rows, columns) != (0, rank - 2, rank - 1):
        return None
    return channels.permuted([axis - 1 for axis in order])


def _channel_axis(axis: Any, result: Any) -> int | None:
    """Return which axis of `ChannelMap.picks` the `axis` of a tensor is, or None if of none."""
    rank = result.ndim
    number = -1 if axis is None or rank < 4 else int(axis) % rank - 1
    return number if 0 <= number < rank - 3 else None


_MAKERS: dict[str, Callable[[Any, Any, Operand], ChannelMap | None]] = {
    "relax.concat": _concat,
    "relax.strided_slice": _slice,
    "relax.split": _split,
    "relax.reshape": _reshape,
    "relax.expand_dims": _reshape,
    "relax.squeeze": _reshape,
    "relax.permute_dims": _permute,
}
