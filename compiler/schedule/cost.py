"""What a kernel has to do, whatever its schedule: operations and bytes, read off its unscheduled loops."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.s_tir.analysis import estimate_tir_flops

from compiler.passes.kernels import RULE


def flops_of(function: tirx.PrimFunc) -> float | None:
    """Return the operations of one call of `function`, not scheduled yet: a multiply and an add are two.

    None where an extent is symbolic, or TVM cannot tell.
    """
    if not _is_static(function):
        return None
    try:
        found = sum(float(estimate_tir_flops(nest)) for nest in _nests(function) if not _moves(nest))
    except Exception:  # TVM's estimate knows only some statements, and says so by several kinds of error
        return None
    return found if math.isfinite(found) and found >= 0 else None


def bytes_of(function: tirx.PrimFunc) -> int | None:
    """Return the bytes of all parameters, each counted once: what has to pass through memory in one call.

    Of a parameter that is read in part (the table of an embedding) only as much counts as there are reads.
    None where an extent is symbolic.
    """
    if not _is_static(function):
        return None
    touched: dict[Any, float] = dict.fromkeys(function.params, 0.0)

    def visit(block: Any) -> None:
        times = _product(var.dom.extent for var in block.iter_vars)
        for region in (*block.reads, *block.writes):
            if region.source in touched:
                touched[region.source] += times * _product(part.extent for part in region.region)

    tvm_ffi.structural_walk(function.body, [(s_tir.SBlock, visit)], order="pre")
    total = 0
    for parameter, elements in touched.items():
        size = math.prod(int(extent) for extent in parameter.ty.shape)
        # No region at all means that the access cannot be seen, as in a call of an external function.
        total += int(min(size, elements or size)) * _item_bytes(parameter.ty.dtype)
    return total


def _nests(function: tirx.PrimFunc) -> list[Any]:
    """Return the loop nests of a kernel, in program order."""
    body = function.body.block.body if isinstance(function.body, s_tir.SBlockRealize) else function.body
    return list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]


def _moves(nest: Any) -> bool:
    """Tell whether `nest` is a gather of channels: TVM's estimate does not know shuffles of vectors."""
    found: list[bool] = []

    def see_block(block: Any) -> None:
        found.append(str(block.annotations.get(RULE, "")) == "channels")

    tvm_ffi.structural_walk(nest, [(s_tir.SBlock, see_block)], order="pre")
    return any(found)


def _is_static(function: tirx.PrimFunc) -> bool:
    """Tell whether all extents are numbers: TVM's estimate takes some value for one that is not."""
    extents: list[Any] = []
    for parameter in function.params:
        if not isinstance(parameter.ty, tirx.BufferType):
            return False
        extents.extend(parameter.ty.shape)

    def see_loop(loop: Any) -> None:
        extents.append(loop.extent)

    tvm_ffi.structural_walk(function.body, [(tirx.For, see_loop)], order="pre")
    return _all_numbers(extents)


def _item_bytes(dtype: Any) -> int:
    kind = tvm.DataType(str(dtype))
    return int((kind.bits * kind.lanes + 7) // 8)


def _product(extents: Iterable[Any]) -> float:
    """Return the product, infinite where an extent is not a number."""
    return math.prod(int(n) if _all_numbers([n]) else math.inf for n in extents)


def _all_numbers(extents: Iterable[Any]) -> bool:
    return all(isinstance(extent, (int, tirx.IntImm)) for extent in extents)
