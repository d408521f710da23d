"""Any GPU kernel that no rule takes: independent iterations become threads, everything else one thread.

It asks nothing of a kernel's shape, so nothing is ever left without a thread. It is not fast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.s_tir import Schedule

from compiler.schedule.blocks import all_blocks, with_root
from compiler.schedule.gpu_limits import accelerator_of
from compiler.target import Target

NAME = "bind"
_THREADS = 256
"""Threads of a block; every GPU allows as many, whatever registers a kernel takes."""


def apply(function: tirx.PrimFunc, target: Target) -> Schedule:
    """Return a schedule of `function` in which every block of the root runs in threads."""
    sch = Schedule(serial_inside(with_root(function)))
    threads = min(_THREADS, accelerator_of(target).max_threads_per_block)
    for index in range(len(all_blocks(sch))):
        sch = _bind(sch, index, threads)
    return sch


def serial_inside(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return `function` with its parallel and vectorized loops made serial: they are for a CPU."""

    def change(loop: Any) -> Any:
        if loop.kind not in (tirx.ForKind.PARALLEL, tirx.ForKind.VECTORIZED):
            return loop
        return tirx.For(
            loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body, annotations=loop.annotations
        )

    return function.with_body(tvm_ffi.structural_map(function.body, [(tirx.For, change)]))


def has_threads(statement: Any) -> bool:
    """Tell whether `statement` binds loops to threads, or launches them itself."""
    found: list[Any] = []

    def see_loop(loop: Any) -> None:
        if loop.kind == tirx.ForKind.THREAD_BINDING:
            found.append(loop)

    def see_attribute(attribute: Any) -> None:
        if attribute.attr_key == "thread_extent":
            found.append(attribute)

    tvm_ffi.structural_walk(statement, [(tirx.For, see_loop), (tirx.AttrStmt, see_attribute)], order="pre")
    return bool(found)


def _bind(sch: Schedule, index: int, threads: int) -> Schedule:
    """Return `sch` with the root's block `index` in threads: by its axes if TVM agrees, else in one."""
    block = all_blocks(sch)[index]
    loops = sch.get_loops(block)
    if has_threads(sch.get(loops[0]) if loops else sch.get(block)):
        return sch
    ways: tuple[Callable[[Schedule, Any, int], None], ...] = (_bind_axes, _bind_outer, _bind_one)
    for way in ways[:-1]:
        trial = sch.copy()
        try:
            way(trial, all_blocks(trial)[index], threads)
        except Exception:  # TVM refuses an illegal step by several kinds of error
            continue
        return trial
    ways[-1](sch, block, threads)
    return sch


def _bind_axes(sch: Schedule, block: Any, threads: int) -> None:
    """Bind the axes that compute independent elements, all fused; the others stay loops in a thread."""
    loops, variables = sch.get_loops(block), sch.get(block).iter_vars
    if len(loops) != len(variables):
        raise ValueError("loops and axes do not match")
    kinds = [variable.iter_type for variable in variables]
    own = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == tirx.IterVar.DataPar]
    rest = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != tirx.IterVar.DataPar]
    if not own:
        raise ValueError("no independent axis")
    if rest:
        sch.reorder(*own, *rest)
    _bind_fused(sch, own, threads)


def _bind_outer(sch: Schedule, block: Any, threads: int) -> None:
    """Bind the outermost loop, where axes are computed from loops in other ways."""
    _bind_fused(sch, sch.get_loops(block)[:1], threads)


def _bind_fused(sch: Schedule, loops: list[Any], threads: int) -> None:
    fused = sch.fuse(*loops) if len(loops) > 1 else loops[0]
    outer, inner = sch.split(fused, [None, threads])
    sch.bind(outer, "blockIdx.x")
    sch.bind(inner, "threadIdx.x")


def _bind_one(sch: Schedule, block: Any, _: int) -> None:
    """Run the whole nest of `block` in a single thread."""
    loops = sch.get_loops(block)
    sch.bind(sch.add_unit_loop(loops[0] if loops else block), "threadIdx.x")
