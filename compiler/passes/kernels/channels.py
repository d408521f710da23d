"""A gather of channels in the blocked layout (N, C/c, H, W, c): concatenation, slicing and shuffling at once.

A vector of output is made of vectors of input at the same pixel. Which lanes of which vectors these are is
known for each block of channels, so that shuffles of vectors do it. TVM's tensor expressions have no vectors:
the kernel is written in TIR.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as script

from compiler.passes.kernels import OUT_ELEMWISE_FUSABLE, RULE

_Vector = tuple[int, int] | None
"""An input and the number of a block in it; None is a vector of zeros."""


def gather_channels(
    shapes: Sequence[Sequence[Any]], picks: np.ndarray, dtype: str = "float32"
) -> tirx.PrimFunc:
    """Return the kernel, of `dtype`, whose output channel i is channel `picks[i, 1]` of input `picks[i, 0]`.

    `shapes` are those of the inputs, which differ in their second axis only. What it writes past the last
    channel is zero: another channel of the input might be infinite.
    """
    image, rows, columns = (_extent(shapes[0][axis], name) for axis, name in ((0, "n"), (2, "h"), (3, "w")))
    width = int(shapes[0][4])
    # TVM would shuffle a bfloat16 as float32, and round it once more.
    bits = "uint16" if dtype == "bfloat16" else dtype
    lanes, every, ramp = _integer(width), slice(_integer(0), _integer(width)), tirx.Ramp(0, 1, width)
    blocks = [_lanes(picks[start : start + width], width) for start in range(0, len(picks), width)]
    extents = (image, _integer(len(blocks)), rows, columns)
    with IRBuilder() as builder, script.prim_func(private=True, s_tir=True):
        script.func_attr({"op_pattern": OUT_ELEMWISE_FUSABLE, "tirx.noalias": True})
        inputs = [
            _parameter(f"x{number}", dtype, image, _integer(int(shape[1])), rows, columns, lanes)
            for number, shape in enumerate(shapes)
        ]
        output = _parameter("gathered", dtype, *extents, lanes)
        with script.grid(*extents) as loops, script.sblock("gather_channels"):
            axes = [script.axis.spatial(extent, loop) for extent, loop in zip(extents, loops, strict=True)]
            n, block, y, x = axes
            ranges = [picks[picks[:, 0] == number, 1] // width for number in range(len(inputs))]
            script.reads(*[
                data[n, int(used.min()) : int(used.max()) + 1, y, x, every]
                for data, used in zip(inputs, ranges, strict=True)
            ])  # fmt: skip
            script.writes(output[n, block, y, x, every])
            script.sblock_attr({RULE: "channels"})

            def load(vector: _Vector) -> Any:
                if vector is None:
                    return tirx.Broadcast(tirx.const(0, bits), width)
                loaded = inputs[vector[0]][n, vector[1], y, x, ramp]
                return loaded if bits == dtype else tirx.reinterpret(f"{bits}x{width}", loaded)

            chosen = _choose(block, [_shuffled(each, load) for each in blocks])
            if bits != dtype:
                chosen = tirx.reinterpret(f"{dtype}x{width}", chosen)
            script.buffer_store(output, chosen, [*axes, ramp])
    made: tirx.PrimFunc = builder.get()
    return made


def _lanes(picks: np.ndarray, width: int) -> list[tuple[_Vector, int]]:
    """Return for each lane of a block the vector that it comes from, and the lane there."""
    found: list[tuple[_Vector, int]] = [((int(s), int(c) // width), int(c) % width) for s, c in picks]
    return found + [(None, lane) for lane in range(len(found), width)]


def _shuffled(lanes: Sequence[tuple[_Vector, int]], load: Callable[[_Vector], Any]) -> Any:
    """Return the vector made of `lanes`: a load, or one shuffle for each vector but the first."""
    first, *others = dict.fromkeys(vector for vector, _ in lanes)
    made, at, in_place = load(first), [lane for _, lane in lanes], list(range(len(lanes)))
    for other in others:
        mask = [
            len(lanes) + lane if vector == other else now
            for (vector, lane), now in zip(lanes, at, strict=True)
        ]
        made, at = _shuffle([made, load(other)], mask), in_place
    return made if at == in_place else _shuffle([made], at)


def _shuffle(vectors: list[Any], mask: list[int]) -> Any:
    return tirx.Shuffle(vectors, [tirx.const(lane, "int32") for lane in mask])


def _choose(number: Any, values: Sequence[Any], first: int = 0) -> Any:
    """Return the one of `values` that `number` says, which counts from `first`."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    # An expression: TVM takes ages to lift nested if statements out of loops.
    return tirx.if_then_else(
        number < _integer(first + half),
        _choose(number, values[:half], first),
        _choose(number, values[half:], first + half),
    )


def _parameter(name: str, dtype: str, *shape: Any) -> Any:
    # As TVM makes buffers of its own kernels: others fuse with this one only if the types are the same.
    return script.arg(name, script.Buffer(shape, dtype, elem_offset=_integer(0)))


def _extent(size: Any, name: str) -> Any:
    """Return `size` if it is a number, else a variable that the kernel reads off its arguments."""
    if isinstance(size, (int, tirx.IntImm)):
        return _integer(int(size))
    return tirx.Var(name, "int64")


def _integer(value: int) -> Any:
    return tirx.IntImm("int64", value)
