"""MetaSchedule's rules for kernels that Kiln has none for, and one more: tiles.

TVM's own rules tile what reuses its inputs, such as a matrix product. Kernels that reach the fallback seldom
do: they move data (a transposition, a resize) or sum it up, and tiles decide whether they do so in whole
vectors and cache lines.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.ir.utils import derived_object
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from compiler.schedule.blocks import extent

_AXES = 4
"""The most axes that are tiled, from the last."""

_WIDEST = 64
"""The most elements of one axis inside of a tile."""

_JOBS = 16
"""How many parallel tasks there are at most, a core."""

_UNROLLED = [0, 16]
"""How many steps may be unrolled. From 64 on, LLVM takes up to a minute for what was hardly ever faster."""


@derived_object
class Tiles(ms.schedule_rule.PyScheduleRule):  # type: ignore[misc]
    """Two schedules of each block that is left: as it is, and in tiles, the sums between their two levels."""

    def _initialize_with_tune_context(self, context: Any) -> None:
        """Need nothing to know of the task."""

    def apply(self, sch: Schedule, block: Any) -> list[Schedule]:
        """Return the schedules that `block` may get."""
        outputs, sums = _axes(sch, block)
        if not outputs or len(outputs) + len(sums) < 2:
            return [sch]
        tiled = sch.copy()
        outer, inner = [], []
        for loop in outputs[-_AXES:]:
            parts = tiled.split(loop, tiled.sample_perfect_tile(loop, 2, _WIDEST))
            outer.append(parts[0])
            inner.append(parts[1])
        tiled.reorder(*outputs[:-_AXES], *outer, *sums, *inner)
        return [sch, tiled]

    def clone(self) -> Any:
        """Return another one."""
        return Tiles()


def generic_rules() -> list[Any]:
    """Return the rules in the order in which MetaSchedule applies them to a block."""
    rules = [each for each in ms.schedule_rule.ScheduleRule.create("llvm") if not _unrolls(each)]
    *most, place = rules  # where a block is computed is sampled last
    unroll = ms.schedule_rule.ParallelizeVectorizeUnroll(_JOBS, _WIDEST, _UNROLLED, unroll_explicit=True)
    return [*most, Tiles(), unroll, place]


def _unrolls(rule: Any) -> bool:
    return isinstance(rule, ms.schedule_rule.ParallelizeVectorizeUnroll)


def _axes(sch: Schedule, block: Any) -> tuple[list[Any], list[Any]]:
    """Return a block's loops over outputs and over sums, without those of one step.

    None at all where a rule before has tiled it, or it has others.
    """
    variables, loops = sch.get(block).iter_vars, sch.get_loops(block)
    kinds = [each.iter_type for each in variables]
    if len(loops) != len(variables) or {*kinds} - {tirx.IterVar.DataPar, tirx.IterVar.CommReduce}:
        return [], []
    long = [(loop, kind) for loop, kind in zip(loops, kinds, strict=True) if extent(sch, loop) != 1]
    outputs = [loop for loop, kind in long if kind == tirx.IterVar.DataPar]
    return outputs, [loop for loop, kind in long if kind == tirx.IterVar.CommReduce]
