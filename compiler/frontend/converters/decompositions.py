"""Which composite operators are taken apart before conversion, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten

KEPT_WHOLE = (
    aten.scaled_dot_product_attention.default,
    aten.linear.default,
    aten.matmul.default,
    aten.silu.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.rms_norm.default,
)


def decomposition_table() -> dict[Any, Callable[..., Any]]:
    """Return the table for ``ExportedProgram.run_decompositions``.

    It is torch's default table without the operators Kiln keeps as one.
    """
    table = torch.export.default_decompositions()
    for op in KEPT_WHOLE:
        table.pop(op, None)
    return table
