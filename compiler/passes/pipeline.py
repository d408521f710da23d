"""The ordered passes of each target kind, and the loop that runs them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import relax

from compiler.passes import dump as ir_dump
from compiler.passes.annotate_patterns import annotate_patterns
from compiler.passes.block_layout import block_layout
from compiler.passes.byte_signs import byte_signs, wants_unsigned
from compiler.passes.choices import Choose, fuses_residuals, usual
from compiler.passes.fold_batch_norm import fold_batch_norm
from compiler.passes.fold_constants import fold_constants, fold_weights
from compiler.passes.fold_scale import fold_scale
from compiler.passes.fuse_attention import fuse_attention
from compiler.passes.kernels.quantize import legalizations
from compiler.passes.lift_conv1d import lift_conv1d
from compiler.passes.lift_conv3d import lift_conv3d
from compiler.passes.lower_attention import lower_attention
from compiler.passes.lower_binary import lower_binary
from compiler.passes.lower_dynamic import lower_dynamic
from compiler.passes.lower_group_norm import lower_group_norm
from compiler.passes.lower_quantized import lower_quantized
from compiler.passes.lower_short_floats import lower_short_floats, with_dot_products
from compiler.passes.lower_weight_only import lower_weight_only
from compiler.passes.merge_groups import merge_groups
from compiler.passes.multiply_reciprocal import multiply_reciprocal
from compiler.passes.name_groups import naming_groups
from compiler.passes.pack_dense import pack_dense
from compiler.passes.quantized_layers import layers_in_float, weights_in_float
from compiler.passes.recognize_all import RECOGNIZERS
from compiler.passes.simplify import simplify
from compiler.passes.split_conv_transpose import split_conv_transpose
from compiler.passes.tabulate import tabulate
from compiler.passes.trim_kernels import trim_kernels
from compiler.target import Target

Pass = Callable[[tvm.IRModule], tvm.IRModule]


@dataclass(frozen=True)
class PassRecord:
    """What one pass did: wall time in seconds, a sentence, and notes for the user.

    `widened` are the weights that it made float32 though they are codes in the graph: operators and shapes.
    """

    name: str
    seconds: float
    summary: str
    notes: tuple[str, ...] = ()
    widened: tuple[tuple[str, tuple[int, ...]], ...] = ()


CANONICAL: tuple[tuple[str, Pass], ...] = (
    ("fold_constants", fold_constants),
    ("simplify", simplify),
    *RECOGNIZERS,
    ("fold_batch_norm", fold_batch_norm),
    ("fold_scale", fold_scale),
)
"""What comes first for every target: one form for each thing that models spell in many ways."""


_LAST_TO_INTEGERS = "lower_dynamic"
"""The pass after which no more layers become integers."""


def canonicalize(mod: tvm.IRModule) -> tvm.IRModule:
    """Return `mod` in the form that compression looks at; `optimize` takes it as it takes any other."""
    for _, step in CANONICAL:
        mod = step(mod)
    return mod


def common_passes(*attention: tuple[str, Pass]) -> list[tuple[str, Pass]]:
    """Return what every target kind starts with; `attention` are passes that see attention as one op."""
    return [
        *CANONICAL,
        *attention,
        ("lower_attention", lower_attention),
        ("lower_group_norm", lower_group_norm),
        ("multiply_reciprocal", multiply_reciprocal),
        ("simplify_again", simplify),
    ]


def cpu_passes(target: Target, choose: Choose = usual, *, residuals: bool = True) -> list[tuple[str, Pass]]:
    """Return the ordered passes for a CPU; for `choose` and `residuals` see `compiler.passes.choices`."""
    # Without vectors, four scalars side by side still share one load of the input.
    lanes = max(4, target.lanes("float32"))
    return [
        *common_passes(("fuse_attention", fuse_attention(lanes))),
        ("byte_signs", byte_signs(unsigned=wants_unsigned(target))),
        ("tabulate", tabulate(target)),
        ("lower_quantized", lower_quantized),
        ("lower_dynamic", lower_dynamic(unsigned=wants_unsigned(target))),
        ("lower_short_floats", lower_short_floats(with_dot_products(target))),
        ("lower_binary", lower_binary(lanes)),
        ("lower_weight_only", lower_weight_only(lanes)),
        ("fold_weights", fold_weights),
        ("lift_conv1d", lift_conv1d),
        ("lift_conv3d", lift_conv3d),
        ("split_conv_transpose", split_conv_transpose),
        ("trim_kernels", trim_kernels),
        ("merge_groups", merge_groups(lanes)),
        ("block_layout", block_layout(lanes, choose)),
        ("pack_dense", pack_dense(lanes)),
        *fuse_passes(cpu=True, residuals=residuals),
    ]


def dispatch_passes() -> list[tuple[str, Pass]]:
    """Return the passes that lower sorts, scans and sampling to TVM's versions for the target in scope.

    These are loops that depend on one another; on a GPU they launch threads of their own.
    """
    return [
        ("dispatch_sampling", relax.backend.DispatchSampling()),
        ("dispatch_sort_scan", relax.backend.DispatchSortScan()),
    ]


def fuse_passes(*, cpu: bool, residuals: bool = True) -> list[tuple[str, Pass]]:
    """Return the passes from operators to fused kernels."""
    return [
        ("decompose", relax.transform.DecomposeOpsForInference()),
        *dispatch_passes(),
        ("legalize", relax.transform.LegalizeOps(legalizations(cpu=cpu))),
        ("fold_legalized", relax.transform.FoldConstant()),
        ("annotate_patterns", annotate_patterns(residuals=residuals)),
        ("fuse_ops", naming_groups(relax.transform.FuseOps())),
        ("fuse_kernels", relax.transform.FuseTIR()),
        ("remove_dead", relax.transform.DeadCodeElimination()),
    ]


def passes_for(target: Target, choose: Choose = usual, *, residuals: bool = True) -> list[tuple[str, Pass]]:
    """Return the ordered passes for `target`."""
    if target.kind == "cpu":
        return cpu_passes(target, choose, residuals=residuals)
    return [*common_passes(), ("fold_weights", fold_weights), *fuse_passes(cpu=False)]


def optimize(
    mod: tvm.IRModule, target: Target, *, dump: Path | None = None, choose: Choose = usual
) -> tuple[tvm.IRModule, list[PassRecord]]:
    """Return `mod` as fused PrimFuncs called from a Relax ``main``, and what each pass did.

    With `dump`, a folder, the IR is written there as imported and after each pass, as ``00_import.py``,
    ``01_fold_constants.py`` and so on, in a form that `compiler.passes.dump.read` reads back.

    Where there is more than one way, `choose` decides: see `compiler.passes.choices`.
    """
    steps = passes_for(target, choose, residuals=fuses_residuals(mod, choose))
    records: list[PassRecord] = []
    quantized: tvm.IRModule | None = None
    if dump is not None:
        ir_dump.write(mod, dump / "00_import.py")
    with target.tvm_target():
        for number, (name, step) in enumerate(steps, 1):
            start, given = time.perf_counter(), mod
            mod = step(given)
            seconds = time.perf_counter() - start
            quantized = given if name == "lower_quantized" else quantized
            notes = layers_in_float(quantized, mod) if quantized and name == _LAST_TO_INTEGERS else ()
            widened = weights_in_float(given) if name == "fold_weights" else ()
            records.append(PassRecord(name, seconds, _summary(_count(given), _count(mod)), notes, widened))
            if dump is not None:
                ir_dump.write(mod, dump / f"{number:02}_{name}.py")
    return mod, records


def _count(mod: tvm.IRModule) -> tuple[int, int]:
    """Return the number of bindings in ``main`` and of PrimFuncs."""
    bindings = sum(len(block.bindings) for block in mod["main"].body.blocks)
    return bindings, len(mod.get_global_vars()) - 1


def _summary(before: tuple[int, int], after: tuple[int, int]) -> str:
    return f"{before[0]} -> {after[0]} operators, {before[1]} -> {after[1]} kernels"
