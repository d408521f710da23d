"""Operators that have no faithful form in a library with fixed output shapes, and what to do instead."""

from __future__ import annotations

_DATA_SHAPE = "its output shape depends on the values of a tensor"

REFUSED: dict[str, str] = {
    "nonzero.default": f"{_DATA_SHAPE}; keep the mask and multiply or torch.where with it instead",
    "nms.default": f"{_DATA_SHAPE}; end the exported model at boxes and scores and run NMS after it",
}
