"""What was decided for one kernel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KernelRecord:
    """The rule that scheduled a kernel."""

    kernel: str
    rule: str
