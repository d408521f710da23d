"""Which values an integer input may take, read from the tables that it indexes."""

from __future__ import annotations

from typing import Any

import torch

from compiler.frontend.interface import Interface

# Operators that give the same integers in another shape.
_KEEP = frozenset(
    (
        "view",
        "reshape",
        "_unsafe_view",
        "unsqueeze",
        "squeeze",
        "expand",
        "slice",
        "select",
        "permute",
        "transpose",
        "t",
        "clone",
        "contiguous",
        "_to_copy",
        "alias",
        "detach",
        "flatten",
    )
)


def index_bounds(interface: Interface) -> dict[str, tuple[float, float]]:
    """Return ``(0, rows - 1)`` for every integer input that indexes an embedding, by the input's name.

    Where it indexes several, the smallest counts. Random token ids outside of it would make the model
    itself fail.
    """
    bounds: dict[str, tuple[float, float]] = {}
    for slot in interface.inputs:
        val = slot.node.meta["val"]
        if val.dtype in (torch.int32, torch.int64):
            rows = _rows(slot.node)
            if rows:
                bounds[slot.name] = (0, min(rows) - 1)
    return bounds


def _rows(node: Any) -> list[int]:
    """Collect the row counts of the embeddings that `node` reaches through changes of shape."""
    rows: list[int] = []
    pending, seen = [node], {node}
    while pending:
        current = pending.pop()
        for user in current.users:
            name = getattr(user.target, "__name__", "").partition(".")[0]
            if name == "embedding" and user.args[1] is current:
                size = user.args[0].meta["val"].shape[0]
                rows += [size] if isinstance(size, int) else []
            elif name in _KEEP and user not in seen:
                seen.add(user)
                pending.append(user)
    return rows
