"""Functions of one byte by their table, and what looks it up."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from compiler.passes.kernels import RULE
from compiler.target import Target


def lookup(codes: Any, table: Any) -> Any:
    """Return `table` (256,) at each of `codes`, bytes of any shape; signed ones count as unsigned there."""

    def value(*index: Any) -> Any:
        return table[tirx.reinterpret("uint8", codes[index]).astype("int32")]

    return te.compute(codes.shape, value, name="lookup", attrs={RULE: "lookup"})


def instruction(target: Target) -> str:
    """Return the name of what looks up a vector of bytes on `target`; ``plain`` is a load for each.

    The others are explained in `compiler.schedule.lookup`.
    """
    if target.arch == "x86_64" and target.vector.bits == 512:
        for feature, name in (("avx512vbmi", "vpermi2b"), ("avx512bw", "vpshufb")):
            if feature in target.features:
                return name
    return "tbl" if target.arch == "aarch64" and target.vector.bits == 128 else "plain"
