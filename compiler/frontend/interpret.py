"""Running the graph of an exported program in PyTorch, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from compiler.frontend.interface import Interface
from compiler.frontend.widen import widen_tensor


class _Watcher(torch.fx.Interpreter):  # type: ignore[misc]
    """An interpreter that keeps the values of some nodes."""

    def __init__(self, module: Any, watched: Sequence[Any]) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.watched = set(watched)
        self.seen: dict[Any, Any] = {}

    def run_node(self, n: Any) -> Any:
        value = super().run_node(n)
        if n in self.watched:
            self.seen[n] = value
        return value


def interpret(
    program: Any, interface: Interface, arrays: Sequence[np.ndarray], nodes: Sequence[Any]
) -> list[np.ndarray]:
    """Compute the values of `nodes` from inputs in signature order."""
    given = {slot.node: array for slot, array in zip(interface.inputs, arrays, strict=True)}
    flat = [
        torch.from_numpy(np.array(given[node])) if node in given else widen_tensor(value)
        for node, value in interface.placeholders
    ]
    watcher = _Watcher(program.graph_module, nodes)
    with torch.no_grad():
        watcher.run(*flat, enable_io_processing=False)
    return [to_array(watcher.seen[node]) for node in nodes]


def to_array(tensor: Any) -> np.ndarray:
    """Give a torch tensor as a numpy array (half precision as float32)."""
    return np.asarray(widen_tensor(tensor.detach()).cpu().resolve_conj().numpy())
