"""Fake-quantize modules with their scales frozen, so that a QAT model can be exported."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed

from compiler.support.errors import ModelError

_ATTRIBUTES = ("fake_quant_enabled", "scale", "zero_point", "qscheme")
"""What fake-quantize modules of torch.ao and of torchao have, learnable ones included."""

_SYMMETRIC = (torch.per_tensor_symmetric, torch.per_channel_symmetric)
_BY_CHANNEL = (torch.per_channel_symmetric, torch.per_channel_affine)


class FrozenFakeQuantize(torch.nn.Module):  # type: ignore[misc]
    """Quantize and dequantize with the scale and zero point a fake-quantize module has at this moment."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.register_buffer("scale", source.scale.detach().clone())
        self.register_buffer("zero_point", source.zero_point.detach().round().to(torch.int32).clone())
        self.limits = _limits(source)
        self.axis = int(source.ch_axis) if source.qscheme in _BY_CHANNEL else None
        self.numbers = (float(self.scale.reshape(-1)[0]), int(self.zero_point.reshape(-1)[0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` rounded to the levels of its type."""
        if self.axis is not None:
            return torch.fake_quantize_per_channel_affine(
                x, self.scale, self.zero_point, self.axis, *self.limits
            )
        return torch.fake_quantize_per_tensor_affine(x, *self.numbers, *self.limits)


class DynamicFakeQuantize(torch.nn.Module):  # type: ignore[misc]
    """Quantize and dequantize with a scale that spans the values at hand, as dynamic quantization does."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.levels = (*_limits(source), torch.int8 if _limits(source)[0] < 0 else torch.uint8)
        self.symmetric = source.qscheme in _SYMMETRIC
        self.least = float(source.activation_post_process.eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` rounded to levels between its least and its greatest value."""
        ops = torch.ops.quantized_decomposed
        choose = ops.choose_qparams_symmetric if self.symmetric else ops.choose_qparams
        low, high, dtype = self.levels
        scale, zero = choose.tensor(x, low, high, self.least, dtype)
        codes = ops.quantize_per_tensor.tensor(x, scale, zero, *self.levels)
        return ops.dequantize_per_tensor.tensor(codes, scale, zero, *self.levels)


def freeze_fake_quantize(module: torch.nn.Module) -> torch.nn.Module:
    """Return `module`, or a copy of it in which no fake-quantize module observes any more.

    Their forward reads switches out of buffers, which torch.export cannot follow. Observers stop; what they
    have seen so far is what counts. Those of dynamic quantization go on looking at what they are given.

    Raises:
        ModelError: one of a kind that is not known.
    """
    names = [name for name, child in module.named_modules() if _is_fake_quantize(child)]
    if not names:
        return module
    if _is_fake_quantize(module):
        return _frozen(module).eval()
    frozen = copy.deepcopy(module)
    for name in names:
        parent, _, child = name.rpartition(".")
        owner = frozen.get_submodule(parent)
        setattr(owner, child, _frozen(getattr(owner, child)).eval())
    return frozen


def _is_fake_quantize(module: Any) -> bool:
    return all(hasattr(module, name) for name in _ATTRIBUTES)


def _limits(source: Any) -> tuple[int, int]:
    owner = source.activation_post_process
    owner = owner if hasattr(owner, "quant_min") else source
    return int(owner.quant_min), int(owner.quant_max)


def _frozen(source: Any) -> torch.nn.Module:
    if not bool(source.fake_quant_enabled[0]):
        return torch.nn.Identity()
    if hasattr(source, "block_size") or source.qscheme not in (
        *_BY_CHANNEL,
        *_SYMMETRIC,
        torch.per_tensor_affine,
    ):
        raise ModelError(
            f"expected fake quantization per tensor or per channel, got {type(source).__name__} "
            f"({source.qscheme}); choose another observer, or convert the model first (convert_pt2e)"
        )
    return DynamicFakeQuantize(source) if getattr(source, "is_dynamic", False) else FrozenFakeQuantize(source)
