"""The names of layers as the user knows them: those of their weights, ``layer1.0.conv1``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compiler.frontend.model import Model

_WEIGHT_AT = {"convolution": 1, "linear": 1, "mm": 1, "matmul": 1, "addmm": 2}
"""Where an operator of ATen takes its weights."""


@dataclass(frozen=True)
class LayerName:
    """A layer of a model, by its weights; `convolves` tells a convolution from a matrix product."""

    name: str
    convolves: bool


def layer_names(model: Model) -> tuple[LayerName, ...]:
    """Return the layers of `model` that have weights, in their order; none where it is not from PyTorch."""
    if model.program is None:
        return ()
    program = model.program.program
    signature = program.graph_signature
    paths = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    found: dict[str, int] = {}
    names = []
    for node in program.graph.nodes:
        operator = (
            getattr(node.target, "__name__", "").partition(".")[0] if node.op == "call_function" else ""
        )
        path = paths.get(_source(node.args[_WEIGHT_AT[operator]])) if operator in _WEIGHT_AT else None
        if path is not None:
            name = path.removesuffix("weight").rstrip("._") or path
            found[name] = found.get(name, 0) + 1
            again = f"#{found[name]}" if found[name] > 1 else ""
            names.append(LayerName(name + again, operator == "convolution"))
    return tuple(names)


def _source(node: Any) -> str:
    """Return the name of the input that `node` is, or is a view of."""
    while getattr(node, "op", "") == "call_function" and len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
    return getattr(node, "name", "")
