"""Schedules of kernels without a rule, as traces: the steps that lead there, and what was sampled in them.

MetaSchedule's generic rules (Shao et al., "Tensor Program Optimization with Probabilistic Programs", NeurIPS
2022) make such traces for any kernel. A trace says no more than TVM's own steps, and another version of TVM
may have others: so it is used by the version that wrote it alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir import Schedule, Trace
from tvm.s_tir import meta_schedule as ms

from compiler.schedule.blocks import all_blocks
from compiler.schedule.generic import generic_rules
from compiler.schedule.space import Space
from compiler.target import Target


@dataclass(frozen=True)
class Traced:
    """Decisions about a kernel without a rule.

    Attributes:
        trace: TVM's JSON of the steps and of what was sampled in them; None for the fallback's schedule.
        tvm: the version that it is of.
    """

    trace: list[Any] | None = None
    tvm: str = ""


@dataclass(frozen=True, eq=False)
class TraceSpace(Space[Traced]):
    """All that MetaSchedule's rules may come to for one kernel: too much to be listed, but not to be sampled.

    Attributes:
        mod: the kernel before it is scheduled, as ``main``.
        target: what it is for.
    """

    mod: Any = None
    target: Target | None = None

    def __iter__(self) -> Iterator[Traced]:
        """Give the default: nobody can list the rest."""
        yield self.default

    def __contains__(self, decisions: object) -> bool:
        """Tell whether these are a trace of this TVM that can be applied to the kernel."""
        if decisions == self.default:
            return True
        if not isinstance(decisions, Traced) or decisions.trace is None or decisions.tvm != tvm.__version__:
            return False
        return self.scheduled(decisions.trace) is not None

    @property
    def size(self) -> int:
        """More than anybody tries where something is sampled; else the default, and what the rules give."""
        designs = self.designs()
        sampled = any(len(design.trace.decisions) for design in designs)
        return sys.maxsize if sampled else 1 + len(designs)

    def scheduled(self, trace: list[Any]) -> Schedule | None:
        """Return the kernel scheduled as `trace` says, None where its steps do not fit."""
        sch = Schedule(self.mod)
        try:
            Trace.apply_json_to_schedule(trace, sch)
        except Exception:  # TVM refuses by many kinds of errors: a damaged trace, or one of another kernel
            return None
        return sch

    def designs(self) -> list[Schedule]:
        """Return schedules of which MetaSchedule samples others; none of a kernel that it cannot schedule."""
        sch = Schedule(self.mod)
        if not _is_static(self.mod["main"]) or not any(sch.get_loops(block) for block in all_blocks(sch)):
            return []
        try:
            return list(tune_context(self).generate_design_space())
        except Exception:  # some of its rules do not see beforehand that they cannot do it
            return []


def tune_context(space: TraceSpace, strategy: Any = None, seed: int = 1) -> Any:
    """Return MetaSchedule's context for a kernel: its rules for any CPU, and `strategy`, which searches."""
    assert space.target is not None
    generator = ms.space_generator.PostOrderApply(
        sch_rules=generic_rules(),
        # Without the one that changes layouts: a kernel's arguments are what they are.
        postprocs=[
            ms.postproc.DisallowDynamicLoop(),
            ms.postproc.RewriteParallelVectorizeUnroll(),
            ms.postproc.RewriteReductionBlock(),
        ],
        mutator_probs="llvm",
    )
    # Not by its constructor, which loads the instructions of all devices for half a minute.
    context = ms.TuneContext.__new__(ms.TuneContext)
    context.__init_handle_by_constructor__(
        ms._ffi_api.TuneContext, space.mod, space.target.tvm_target(), generator, strategy, "main",
        space.target.cores, seed, _silent,
    )  # fmt: skip
    ms._ffi_api.TuneContextInitialize(context)
    return context


def traced(trace: Trace) -> Traced:
    """Return the decisions that are the steps of `trace`."""
    return Traced(_plain(trace.as_json()), tvm.__version__)


def is_current(plain: Any) -> bool:
    """Tell whether plain decisions, of a rule or as a choice by rules' names, are no trace of another TVM."""
    for each in (plain, *plain.values()):
        if isinstance(each, Mapping) and each.get("trace") is not None and each.get("tvm") != tvm.__version__:
            return False
    return True


def _is_static(function: tirx.PrimFunc) -> bool:
    types = [parameter.ty for parameter in function.params]
    return all(
        isinstance(extent, (int, tirx.IntImm)) for each in types for extent in getattr(each, "shape", [None])
    )


def _silent(level: int, file: str, line: int, message: str) -> None:
    """Keep MetaSchedule's talk off the terminal."""


def _plain(value: Any) -> Any:
    """Return what TVM calls JSON as plain lists, numbers and text."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (tirx.IntImm, tirx.FloatImm)):
        return value.value
    if hasattr(value, "items"):
        return {str(name): _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value]
