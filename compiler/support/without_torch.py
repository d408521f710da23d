"""Running a bundle and measuring a kernel need no torch, and importing it takes longer than anything else."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def without_torch() -> Iterator[None]:
    """Make ``import torch`` fail inside the block, unless it is loaded already.

    TVM imports torch wherever it is installed, only to share tensors with it: 0.9 s instead of 3 s.
    """
    modules: dict[str, Any] = sys.modules
    if "torch" in modules or "tvm" in modules:
        yield
        return
    modules["torch"] = None
    try:
        yield
    finally:
        del modules["torch"]
