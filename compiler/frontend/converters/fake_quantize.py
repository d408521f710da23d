"""Fake-quantize modules with their scales frozen, so that a QAT model can be exported."""

from __future__ import annotations

import copy
from typing import Any

import torch


class FrozenFakeQuantize(torch.nn.Module):  # type: ignore[misc]
    """Quantize and dequantize with the scale and zero point a fake-quantize module has at this moment."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.register_buffer("scale", source.scale.detach().clone())
        self.register_buffer("zero_point", source.zero_point.detach().to(torch.int32).clone())
        self.limits = (
            int(source.activation_post_process.quant_min),
            int(source.activation_post_process.quant_max),
        )
        self.enabled = bool(source.fake_quant_enabled[0])
        self.axis = int(source.ch_axis) if bool(source.is_per_channel) else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` rounded to the levels of its type, or `x` itself where the source was disabled."""
        if not self.enabled:
            return x
        if self.axis is not None:
            return torch.fake_quantize_per_channel_affine(
                x, self.scale, self.zero_point, self.axis, *self.limits
            )
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, *self.limits)


def freeze_fake_quantize(module: torch.nn.Module) -> torch.nn.Module:
    """Return `module`, or a copy of it in which no fake-quantize module observes any more.

    Their forward reads switches out of buffers, which torch.export cannot follow. Observers stop; what they
    have seen so far is what counts.
    """
    from torch.ao.quantization.fake_quantize import FakeQuantizeBase

    def found(root: torch.nn.Module) -> list[str]:
        return [name for name, child in root.named_modules() if isinstance(child, FakeQuantizeBase)]

    if not found(module):
        return module
    if isinstance(module, FakeQuantizeBase):
        return FrozenFakeQuantize(module).eval()
    frozen = copy.deepcopy(module)
    for name in found(frozen):
        parent, _, child = name.rpartition(".")
        owner = frozen.get_submodule(parent)
        setattr(owner, child, FrozenFakeQuantize(getattr(owner, child)).eval())
    return frozen
