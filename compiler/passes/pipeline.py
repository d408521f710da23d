"""The ordered passes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import relax

from compiler.target import Target


@dataclass(frozen=True)
class PassRecord:
    """What one pass did: wall time in seconds and a sentence."""

    name: str
    seconds: float
    summary: str


def optimize(mod: tvm.IRModule, target: Target, *, dump: Path | None = None) -> tuple[tvm.IRModule, list[PassRecord]]:
    """Return `mod` as fused PrimFuncs called from a Relax ``main``."""
    records: list[PassRecord] = []
    with target.tvm_target():
        for step in (
            relax.transform.DecomposeOpsForInference(),
            relax.transform.FoldConstant(),
            relax.transform.LegalizeOps(),
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FoldConstant(),
            relax.transform.FuseOps(),
            relax.transform.FuseTIR(),
            relax.transform.DeadCodeElimination(),
        ):
            start = time.perf_counter()
            mod = step(mod)
            records.append(PassRecord(step.info.name, time.perf_counter() - start, ""))
    return mod, records
