"""torchvision's own operators, written again in ATen operators that have converters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Tensor = Any  # torch.Tensor, which the type checker does not see


def deform_conv2d(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Tensor:
    """Convolve ``x[n, c, h, w]`` with taps moved by ``offset[n, groups * taps * (y, x), oh, ow]``.

    Every tap reads bilinearly, zero outside (Dai et al., arXiv 1703.06211; the mask: Zhu et al., 1811.11168).
    """
    batch, channels = x.shape[:2]
    out_channels, _, kernel_h, kernel_w = weight.shape
    rows, columns = offset.shape[2:]
    taps = kernel_h * kernel_w
    moved = offset.reshape(batch, offset_groups, taps, 2, rows, columns)
    tap = torch.arange(taps)
    y = (
        _positions(tap // kernel_w * dilation_h, rows, stride_h, pad_h).reshape(taps, rows, 1)
        + moved[:, :, :, 0]
    )
    z = (
        _positions(tap % kernel_w * dilation_w, columns, stride_w, pad_w).reshape(taps, 1, columns)
        + moved[:, :, :, 1]
    )
    sampled = _bilinear(x, y, z, offset_groups)
    if use_mask:
        sampled = sampled * mask.reshape(batch, offset_groups, 1, taps, rows, columns)
    patches = sampled.reshape(batch, groups, channels // groups * taps, rows * columns)
    filters = weight.reshape(1, groups, out_channels // groups, channels // groups * taps)
    result = torch.matmul(filters, patches).reshape(batch, out_channels, rows, columns)
    return result + bias.reshape(1, -1, 1, 1)


def _positions(taps: Tensor, count: int, stride: int, padding: int) -> Tensor:
    """Return where each tap falls for each output position, ``[taps, count]``, as floats."""
    return (taps.unsqueeze(1) + torch.arange(count) * stride - padding).to(torch.float32)


def _bilinear(x: Tensor, y: Tensor, z: Tensor, groups: int) -> Tensor:
    """Read ``x[n, c, h, w]`` at ``[n, groups, taps, oh, ow]`` points, channels split over the groups."""
    batch, channels, height, width = x.shape
    flat = x.reshape(batch, groups, channels // groups, height * width)
    top, left = torch.floor(y), torch.floor(z)
    total: Tensor = None
    for down in (0, 1):
        for right in (0, 1):
            row, column = top + down, left + right
            share = (1 - (y - row).abs()) * (1 - (z - column).abs())
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            lead = [batch, groups, channels // groups]
            picked = torch.gather(flat, 3, index.reshape(batch, groups, 1, -1).expand(*lead, -1))
            part = picked.reshape(*lead, *y.shape[2:]) * torch.where(inside, share, 0.0).unsqueeze(2)
            total = part if total is None else total + part
    return total


def vision_rewrites() -> dict[Any, Callable[..., Any]]:
    """Return the rewrites of torchvision's operators, none where torchvision was not imported."""
    library = torch.ops.torchvision
    return {library.deform_conv2d.default: deform_conv2d} if hasattr(library, "deform_conv2d") else {}
