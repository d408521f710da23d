"""What accelerators need beside the common passes."""

from __future__ import annotations

from typing import Any

from tvm import relax

from compiler.target import Target


def gpu_passes(target: Target) -> list[tuple[str, Any]]:
    """Return the passes that must run before operators are legalized for an accelerator.

    Sorting and scanning are loops that depend on one another: they become the versions for GPUs of TVM's
    operator library, which launch their own threads. They run in the scope of ``target.tvm_target()``.
    """
    if target.kind == "cpu":
        return []
    return [
        ("dispatch_sampling", relax.backend.DispatchSampling()),
        ("dispatch_sort_scan", relax.backend.DispatchSortScan()),
    ]
