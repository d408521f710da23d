"""What was decided for one kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tvm import tirx

from compiler.schedule.cost import bytes_of, flops_of

Origin = Literal["tuned", "default", "generic"]
"""Where a schedule comes from: a record, a rule's cost formula, or no rule for such a kernel."""


@dataclass(frozen=True)
class KernelRecord:
    """The rule that scheduled a kernel, and what one call of it has to do: operations and bytes of memory.

    `flops` and `bytes` are None where a shape is symbolic (see `compiler.schedule.cost`).
    """

    kernel: str
    rule: str
    flops: float | None
    bytes: int | None
    origin: Origin = "default"


def record(kernel: str, rule: str, function: tirx.PrimFunc, origin: Origin = "default") -> KernelRecord:
    """Return the record of a kernel that `rule` scheduled; `function` is what it was before."""
    return KernelRecord(kernel, rule, flops_of(function), bytes_of(function), origin)
