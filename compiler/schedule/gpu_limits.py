"""Whether a scheduled kernel runs on a GPU at all: every access inside threads, and nothing over a limit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx

from compiler.support.errors import InternalError
from compiler.target import Accelerator, Target


@dataclass(frozen=True)
class Launch:
    """How one kernel is launched: static extents of the grid and of a block, by axis; 0 if symbolic.

    `shared_memory` is what a block declares, in bytes, without arrays of symbolic size.
    """

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_memory: int


def fits(function: tirx.PrimFunc, target: Target) -> bool:
    """Tell whether `function`, scheduled, can be compiled and launched on the accelerator of `target`.

    False if memory is touched outside of a thread, a block has too many threads or too much shared memory,
    or the grid is too large. Symbolic extents are not judged.
    """
    gpu = accelerator_of(target)
    try:
        lowered = lower_kernel(function, target)
    except Exception:  # TVM's passes reject a schedule by many kinds of error
        return False
    return not accesses_outside(lowered.body) and all(
        _launch_fits(launch, gpu) for launch in launches(lowered)
    )


def accelerator_of(target: Target) -> Accelerator:
    """Return the accelerator of `target`.

    Raises:
        InternalError: it has none; targets of these kinds always have one.
    """
    if target.accelerator is None:
        raise InternalError(f"expected an accelerator in target '{target.name}' of kind {target.kind}")
    return target.accelerator


def accesses_outside(body: Any) -> list[str]:
    """Return the buffers that a lowered kernel reads or writes outside of all threads.

    TVM's own check (``verify_memory``) sees accesses to arguments only, and not in this form of a kernel.
    """
    found: list[str] = []

    def see_attribute(statement: Any) -> Any:
        return tvm_ffi.WalkResult.SKIP if statement.attr_key == "thread_extent" else None

    def see_store(store: Any) -> None:
        found.append(str(store.buffer.name))

    def see_load(load: Any) -> None:
        found.append(str(load.source.name))

    sees = [(tirx.AttrStmt, see_attribute), (tirx.BufferStore, see_store), (tvm.ir.TensorLoad, see_load)]
    tvm_ffi.structural_walk(body, sees, order="pre")
    return found


def launches(lowered: tirx.PrimFunc) -> list[Launch]:
    """Return the launches of a lowered kernel, one for each nest of threads, in program order."""
    extents: list[dict[str, int]] = []
    shared: list[int] = []

    def see_thread(statement: Any) -> None:
        if statement.attr_key != "thread_extent":
            return
        tag = str(statement.node.thread_tag)
        # Nested axes belong to one launch; an axis seen before starts the next one.
        if not extents or tag in extents[-1]:
            extents.append({})
            shared.append(0)
        extents[-1][tag] = _static(statement.value) or 0

    def see_memory(statement: Any) -> None:
        if shared and str(statement.buffer.scope()).startswith("shared"):
            shared[-1] += _bytes(statement.buffer)

    tvm_ffi.structural_walk(
        lowered.body, [(tirx.AttrStmt, see_thread), (tirx.AllocBuffer, see_memory)], order="pre"
    )
    return [
        Launch(_axes(tags, "blockIdx"), _axes(tags, "threadIdx"), memory)
        for tags, memory in zip(extents, shared, strict=True)
    ]


def _axes(extents: dict[str, int], kind: str) -> tuple[int, int, int]:
    x, y, z = (extents.get(f"{kind}.{axis}", 1) for axis in "xyz")
    return x, y, z


def _static(value: Any) -> int | None:
    return int(value) if isinstance(value, tirx.IntImm) else None


def _bytes(buffer: Any) -> int:
    """Return the size of `buffer`, 0 if it is symbolic."""
    dtype = tvm.DataType(str(buffer.dtype))
    shape = [_static(extent) or 0 for extent in buffer.shape]
    bits: int = dtype.bits * dtype.lanes
    return math.prod(shape) * (bits + 7) // 8


def _launch_fits(launch: Launch, gpu: Accelerator) -> bool:
    if gpu.max_grid is not None and any(
        blocks > most for blocks, most in zip(launch.grid, gpu.max_grid, strict=True)
    ):
        return False
    return (
        math.prod(launch.block) <= gpu.max_threads_per_block
        and launch.shared_memory <= gpu.max_shared_memory_per_block
    )


def lower_kernel(function: tirx.PrimFunc, target: Target) -> tirx.PrimFunc:
    """Return `function` with its blocks, buffers and threads made explicit, as code generation sees them."""
    step, name = s_tir.transform, "main"
    function = function.with_attr(
        {"global_symbol": name, "target": target.tvm_target(), "tirx.noalias": True}
    )
    passes = [
        step.CanonicalizeLoop(),
        step.LowerCrossThreadReduction(),
        step.LowerInitBlock(),
        step.PlanAndUpdateBufferAllocationLocation(),
        step.ConvertBlocksToOpaque(),
        step.LiftThreadBinding(),
        step.ManifestSharedMemoryLocalStage(),
        step.CompactBufferAllocation(),
        step.LowerAutoCopy(),
        step.UnifyThreadBinding(),
        step.LowerMatchBuffer(),
        step.InjectSoftwarePipeline(),
        step.LowerOpaqueBlock(),
        tirx.transform.FlattenBuffer(),
        tirx.transform.BF16ComputeLegalize(),
        tirx.transform.NarrowDataType(32),
        tirx.transform.VectorizeLoop(True),
        step.InjectVirtualThread(),
        tirx.transform.StorageRewrite(),
        step.MergeSharedMemoryAllocations(),
        tirx.transform.StmtSimplify(),
    ]
    return tvm.transform.Sequential(passes)(tvm.IRModule({name: function}))[name]
