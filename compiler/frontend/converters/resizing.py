"""Resizing and sampling images."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from tvm import relax

from compiler.frontend.converters.registry import Call, array, converter, dtype_of, shape_of
from compiler.frontend.converters.shapes import tirx_equal
from compiler.support.errors import ModelError

R = relax.op


def _exact(call: Call, x: relax.Expr, scales: list[float | None]) -> bool:
    """Tell whether a given scale is the ratio of the sizes, which is what TVM works with."""
    for size, out, scale in zip(shape_of(x)[2:], call.shape[2:], scales, strict=True):
        if scale is None:
            continue
        if isinstance(size, int) and isinstance(out, int):
            if abs(out - size * scale) > 1e-9 * out:
                return False
            continue
        ratio = Fraction(float(scale))
        if ratio.denominator > 64 or not tirx_equal(out * ratio.denominator, size * ratio.numerator):
            return False
    return True


def _resize(call: Call, x: relax.Expr, method: str, align_corners: bool) -> relax.Expr:
    if method == "nearest_neighbor":
        mode = {"coordinate_transformation_mode": "asymmetric", "rounding_method": "floor"}
    else:
        mode = {
            "coordinate_transformation_mode": "align_corners" if align_corners else "half_pixel",
            "rounding_method": "",
        }
    op, layout = (R.image.resize2d, "NCHW") if len(call.shape) == 4 else (R.image.resize3d, "NCDHW")
    return call.emit(op(x, call.shape[2:], layout=layout, method=method, **mode))


def _scales(call: Call, first: int, rank: int) -> list[Any]:
    args = call.node.args
    if call.node.target.__name__.endswith(".vec"):
        given = args[first] if len(args) > first else None
        return [None] * rank if given is None else list(given)
    return [args[first + axis] if len(args) > first + axis else None for axis in range(rank)]


@converter("upsample_nearest2d.vec", "upsample_nearest2d.default", "upsample_nearest3d.default")
def _nearest(call: Call) -> relax.Expr:
    x = call.importer.env[call.node.args[0]]
    if not _exact(call, x, _scales(call, 2, len(call.shape) - 2)):
        return _by_matrices(
            call, x, lambda eye, size, scale: _call_nearest(eye, size, scale), _scales(call, 2, 2)
        )
    return _resize(call, x, "nearest_neighbor", False)


def _call_nearest(eye: torch.Tensor, size: list[int], scales: list[float | None]) -> torch.Tensor:
    return torch.ops.aten.upsample_nearest2d.default(eye, size, *scales)


@converter(
    "upsample_bilinear2d.vec",
    "upsample_bilinear2d.default",
    "upsample_trilinear3d.default",
    "upsample_bicubic2d.vec",
    "upsample_bicubic2d.default",
)
def _smooth(call: Call, align_corners: bool) -> relax.Expr:
    x, name = call.importer.env[call.node.args[0]], call.node.target.__name__
    scales = _scales(call, 3, len(call.shape) - 2)
    cubic = "bicubic" in name
    if align_corners or _exact(call, x, scales):
        return _resize(call, x, "cubic" if cubic else "linear", align_corners)
    if len(call.shape) == 5:
        raise ModelError(
            "expected trilinear resizing by the ratio of the sizes, got another scale; give the output size"
        )
    op = torch.ops.aten.upsample_bicubic2d if cubic else torch.ops.aten.upsample_bilinear2d
    return _by_matrices(
        call, x, lambda eye, size, scale: op.default(eye, size, align_corners, *scale), scales
    )


@converter("_upsample_bilinear2d_aa.default", "_upsample_bicubic2d_aa.default")
def _antialiased(call: Call, align_corners: bool) -> relax.Expr:
    x, op = call.importer.env[call.node.args[0]], call.node.target
    return _by_matrices(
        call, x, lambda eye, size, scale: op(eye, size, align_corners, *scale), _scales(call, 3, 2)
    )


def _by_matrices(
    call: Call, x: relax.Expr, resize: Callable[..., torch.Tensor], scales: list[Any]
) -> relax.Expr:
    """Resize as two matrix products; the matrices are what PyTorch's own op makes of the identity."""
    sizes, out = shape_of(x)[2:], call.shape[2:]
    if not all(isinstance(n, int) for n in (*sizes, *out)):
        raise ModelError(
            "expected this resizing on fixed sizes, got symbolic ones; give an integer scale or fixed sizes"
        )
    matrices = []
    for size, target, scale in zip(sizes, out, scales, strict=True):
        eye = torch.eye(size, dtype=torch.float64)[None, None]
        matrices.append(resize(eye, [target, size], [scale, None])[0, 0].numpy().astype(dtype_of(x)))
    rows = call.emit(R.matmul(array(matrices[0]), x))
    return call.emit(R.matmul(rows, array(matrices[1].T.copy())))


@converter("grid_sampler_2d.default")
def _grid_sample(
    call: Call,
    input: relax.Expr,
    grid: relax.Expr,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> relax.Expr:
    """Sample at ``grid[N, H, W, (x, y)]``; TVM wants it as ``[N, (x, y), H, W]``."""
    moved = call.emit(R.permute_dims(grid, [0, 3, 1, 2]))
    method = ("bilinear", "nearest", "bicubic")[interpolation_mode]
    padding = ("zeros", "border", "reflection")[padding_mode]
    sampled = R.image.grid_sample(input, moved, method, "NCHW", padding, align_corners)
    return call.emit(sampled)
