"""Modules that hold quantized tensors (``torch.ao.nn.quantized``), which torch.export cannot trace.

What `quantize_dynamic` makes of linear layers becomes the operators that they consist of. Others are refused:
their inputs and outputs are quantized tensors, which PT2E and this importer do not have.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.ao.nn.quantized.dynamic as dynamic
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed

from compiler.support.errors import ModelError

_LEVELS = (0, 127, torch.uint8)
"""The levels of activations: torch's kernel leaves one bit out, so that sums of two products fit 16 bits."""

_LEAST_SCALE = torch.finfo(torch.float32).eps


class DynamicLinear(torch.nn.Module):  # type: ignore[misc]
    """A linear layer with int8 weights, whose input is rounded to levels between its least and greatest."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        weight = source.weight()
        by_channel = weight.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric)
        scale = weight.q_per_channel_scales() if by_channel else torch.tensor([weight.q_scale()])
        zero = weight.q_per_channel_zero_points() if by_channel else torch.tensor([weight.q_zero_point()])
        rows = weight.shape[0]
        self.register_buffer("weight", weight.int_repr())
        self.register_buffer("scale", scale.float().expand(rows).contiguous())
        self.register_buffer("zero_point", zero.to(torch.int64).expand(rows).contiguous())
        self.register_buffer("bias", None if source.bias() is None else source.bias().detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x @ weight.T + bias``, with `x` rounded."""
        ops = torch.ops.quantized_decomposed
        low, high, dtype = _LEVELS
        scale, zero = ops.choose_qparams.tensor(x, low, high, _LEAST_SCALE, dtype)
        codes = ops.quantize_per_tensor.tensor(x, scale, zero, *_LEVELS)
        rounded = ops.dequantize_per_tensor.tensor(codes, scale, zero, *_LEVELS)
        weight = ops.dequantize_per_channel(
            self.weight, self.scale, self.zero_point, 0, -128, 127, torch.int8
        )
        return torch.nn.functional.linear(rounded, weight, self.bias)


def without_quantized_modules(module: torch.nn.Module) -> torch.nn.Module:
    """Return `module`, or a copy of it with `DynamicLinear` for linear layers of `quantize_dynamic`.

    Raises:
        ModelError: a quantized module of another kind.
    """
    found = {name: child for name, child in module.named_modules() if _is_quantized(child)}
    if not found:
        return module
    for name, child in found.items():
        if not _is_dynamic_linear(child):
            raise ModelError(
                f"'{name}' is a {type(child).__module__}.{type(child).__name__}, which works on quantized "
                "tensors, and torch.export cannot trace those; quantize with PT2E instead "
                "(torchao.quantization.pt2e), or give Kiln the model in float and --quantize int8"
            )
    if "" in found:
        return DynamicLinear(module).eval()
    changed = copy.deepcopy(module)
    for name, child in found.items():
        parent, _, own = name.rpartition(".")
        setattr(changed.get_submodule(parent), own, DynamicLinear(child).eval())
    return changed


def _is_dynamic_linear(module: Any) -> bool:
    return type(module) is dynamic.Linear and module.weight().dtype == torch.qint8


def _is_quantized(module: Any) -> bool:
    place = type(module).__module__
    parts = place.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized"))
    # What packs weights is part of the module that has it; reference modules compute in float.
    return parts and ".reference" not in place and not type(module).__name__.endswith("PackedParams")
