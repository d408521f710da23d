"""Kiln's own decompositions: operators written again in ATen operators that have converters.

Each function takes the operator's schema arguments; torch traces it in place of the operator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from compiler.frontend.converters.vision_rewrites import vision_rewrites

aten = torch.ops.aten
Tensor = Any  # torch.Tensor, which the type checker does not see


def rrelu(
    x: Tensor, lower: Any = 1 / 8, upper: Any = 1 / 3, training: bool = False, generator: Any = None
) -> Any:
    """Outside of training the random slope is its mean."""
    return NotImplemented if training else aten.leaky_relu.default(x, (lower + upper) / 2)


def cdist(x1: Tensor, x2: Tensor, p: float, compute_mode: int | None = None) -> Tensor:
    """Distances between all rows of ``[..., m, k]`` and ``[..., n, k]``, as ``[..., m, n]``."""
    difference = (x1.unsqueeze(-2) - x2.unsqueeze(-3)).abs()
    return aten.linalg_vector_norm.default(difference, p, [-1])


def trilinear(
    i1: Tensor,
    i2: Tensor,
    i3: Tensor,
    expand1: list[int],
    expand2: list[int],
    expand3: list[int],
    sumdim: list[int],
    unroll_dim: int = 1,
) -> Tensor:
    """Multiply three tensors after adding the axes they lack, and sum (``nn.Bilinear``)."""
    product = _with_axes(i1, expand1) * _with_axes(i2, expand2) * _with_axes(i3, expand3)
    return product.sum(sumdim) if sumdim else product


def _with_axes(x: Tensor, axes: list[int]) -> Tensor:
    for axis in sorted(axes):
        x = x.unsqueeze(axis)
    return x


def batch_norm_no_statistics(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, training: bool, momentum: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize with the batch's own mean and variance."""
    axes = [0, *range(2, x.dim())]
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    scale = torch.rsqrt(variance + eps)
    shape = [1, -1] + [1] * (x.dim() - 2)
    result = (x - mean) * scale
    result = result if weight is None else result * weight.reshape(shape)
    result = result if bias is None else result + bias.reshape(shape)
    return result, mean.reshape(-1), scale.reshape(-1)


def batch_norm_functional(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    """Batch norm that also gives its running statistics moved on."""
    if not training:
        return NotImplemented
    result, mean, scale = batch_norm_no_statistics(x, weight, bias, True, momentum, eps)
    count = x.numel() // x.shape[1]
    variance = x.var([0, *range(2, x.dim())], correction=0) * (count / (count - 1))
    moved_mean = running_mean * (1 - momentum) + mean * momentum
    return result, mean, scale, moved_mean, running_var * (1 - momentum) + variance * momentum


def embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> Any:
    """Sum (0), average (1) or take the maximum (2) of each bag's rows.

    Bags are the runs between offsets, so each of them is a mask over all indices: ``[bags, indices]``.
    """
    starts = offsets[:-1] if include_last_offset else offsets
    position = torch.arange(indices.shape[0], device=indices.device)
    total = torch.full_like(starts[:1], indices.shape[0])
    ends = offsets[1:] if include_last_offset else torch.cat([offsets[1:], total])
    member = (position >= starts.unsqueeze(1)) & (position < ends.unsqueeze(1))
    if padding_idx >= 0:
        member = member & (indices != padding_idx)
    rows = aten.embedding.default(weight, indices.long())
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(1)
    size = member.sum(1)
    if mode == 2:
        chosen = torch.where(member.unsqueeze(-1), rows, float("-inf")).amax(1)
        result = torch.where(size.unsqueeze(1) > 0, chosen, 0.0)
    else:
        result = member.to(rows.dtype) @ rows
        result = result / size.clamp(min=1).unsqueeze(1) if mode == 1 else result
    # The other three outputs serve the gradient; they have the operator's types and are never read.
    bag = torch.zeros_like(indices)
    return result, bag, size.to(indices.dtype), bag


def _prefixes(x: Tensor, dim: int, fill: float) -> tuple[Tensor, int]:
    """Give, for every position on `dim`, the elements up to it along a new last axis, `fill` beyond."""
    axis = dim % x.dim()
    length = x.shape[axis]
    rows = torch.arange(length, device=x.device)
    moved = x.movedim(axis, -1).unsqueeze(-2)
    return torch.where(rows.unsqueeze(0) <= rows.unsqueeze(1), moved, fill), axis


def logcumsumexp(x: Tensor, dim: int) -> Tensor:
    """Log of the running sum of exponentials, each prefix scaled by its own maximum."""
    if x.dim() == 0:
        return x.clone()
    prefixes, axis = _prefixes(x, dim, float("-inf"))
    return torch.logsumexp(prefixes, -1).movedim(-1, axis)


def running_extremum(largest: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    """Make ``cummax`` or ``cummin``: the last position wins among equals, as in PyTorch."""

    def scan(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        if x.dim() == 0:
            return x.clone(), torch.zeros_like(x, dtype=torch.int64)
        if not x.is_floating_point():
            raise NotImplementedError("expected cummax and cummin of floating-point tensors; cast the input")
        prefixes, axis = _prefixes(x, dim, float("-inf") if largest else float("inf"))
        backwards = prefixes.flip(-1)
        index = backwards.argmax(-1) if largest else backwards.argmin(-1)
        last = x.shape[axis] - 1 - index
        # A prefix filled up with infinities may point beyond itself when all of it is infinite.
        rows = torch.arange(x.shape[axis], device=x.device)
        last = torch.minimum(last, rows).movedim(-1, axis)
        return torch.gather(x, axis, last), last

    return scan


OWN: dict[Any, Callable[..., Any]] = {
    aten.rrelu.default: rrelu,
    aten._cdist_forward.default: cdist,
    aten._trilinear.default: trilinear,
    aten._native_batch_norm_legit.no_stats: batch_norm_no_statistics,
    aten._native_batch_norm_legit_functional.default: batch_norm_functional,
    aten._embedding_bag.default: embedding_bag,
    aten._embedding_bag_forward_only.default: embedding_bag,
    aten.logcumsumexp.default: logcumsumexp,
    aten.cummax.default: running_extremum(True),
    aten.cummin.default: running_extremum(False),
}


def library_rewrites() -> dict[Any, Callable[..., Any]]:
    """Rewrites of operators that exist only once another library has registered them."""
    return vision_rewrites()
