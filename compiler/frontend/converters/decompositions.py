"""Which composite operators are taken apart before conversion, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from compiler.frontend.converters.rewrites import OWN, library_rewrites

aten = torch.ops.aten

KEPT_WHOLE = (
    aten.scaled_dot_product_attention.default,
    aten.linear.default,
    aten.matmul.default,
    aten.silu.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.rms_norm.default,
    aten.roll.default,
    aten.instance_norm.default,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.upsample_nearest2d.default,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest3d.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_bicubic2d.vec,
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
)


def decomposition_table() -> dict[Any, Callable[..., Any]]:
    """Return the table for ``ExportedProgram.run_decompositions``.

    It is torch's default table without the operators Kiln keeps as one, and with Kiln's own.
    """
    table: dict[Any, Callable[..., Any]] = torch.export.default_decompositions()
    for op in KEPT_WHOLE:
        table.pop(op, None)
    table.update(OWN)
    table.update(library_rewrites())
    return table
