"""Half precision is imported as float32: Kiln lowers precision itself, where the target gains from it."""

from __future__ import annotations

from typing import Any

import torch

_HALF = (torch.float16, torch.bfloat16)


def is_half(program: Any) -> bool:
    """Whether any value in the graph of `program` is float16 or bfloat16."""
    return any(
        isinstance(value, torch.Tensor) and value.dtype in _HALF
        for node in program.graph.nodes
        for value in _values(node.meta.get("val"))
    )


def widen_graph(program: Any) -> None:
    """Make every half-precision value of the graph of `program` float32, in place.

    Weights are not touched (`widen_tensor` casts them when they are read); the recorded results and the
    dtype arguments of casts and tensor creation are.
    """
    for node in program.graph.nodes:
        node.args = torch.fx.node.map_aggregate(node.args, _widen_argument)
        node.kwargs = torch.fx.node.map_aggregate(node.kwargs, _widen_argument)
        if "val" in node.meta:
            node.meta["val"] = torch.fx.node.map_aggregate(node.meta["val"], _widen_value)
    program.graph_module.recompile()


def widen_tensor(value: Any) -> Any:
    """Give a half-precision tensor as float32, anything else as it is."""
    return value.float() if isinstance(value, torch.Tensor) and value.dtype in _HALF else value


def _widen_argument(value: Any) -> Any:
    return torch.float32 if isinstance(value, torch.dtype) and value in _HALF else value


def _widen_value(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype in _HALF:
        mode = getattr(value, "fake_mode", None)
        if mode is None:
            return value.float()
        with mode:
            return value.float()
    return value


def _values(val: Any) -> tuple[Any, ...]:
    return tuple(val) if isinstance(val, (tuple, list)) else (val,)
