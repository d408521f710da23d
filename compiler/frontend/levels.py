"""What the integers of a quantized graph stand for, as its quantize and dequantize say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import tvm

from compiler.ir.constants import number_of
from compiler.ir.graph import Graph
from compiler.ir.layers import layer_of
from compiler.ir.rewriter import is_call
from compiler.support.dtypes import SHIFT
from compiler.support.signature import Levels, Signature, TensorSpec

Stored = tuple[Levels, str]
"""Levels, and the dtype of what is stored."""


def with_levels(signature: Signature, mod: tvm.IRModule) -> Signature:
    """Return `signature` with the levels of inputs that `mod` dequantizes and outputs it quantizes."""
    if not any("int" in spec.dtype for spec in (*signature.inputs, *signature.outputs)):
        return signature
    graph = Graph(mod)
    inputs = [_of_input(graph, var) for var in graph.inputs]
    outputs = [_of_quantize(graph.definition(var)) for var in graph.outputs]
    return replace(
        signature, inputs=_told(signature.inputs, inputs), outputs=_told(signature.outputs, outputs)
    )


def layer_levels(mod: tvm.IRModule) -> dict[str, Stored]:
    """Return the levels of the layers of `mod` that it quantizes, by nodes; none where they are several."""
    graph, found = Graph(mod), dict[str, set[Stored]]()
    for var in graph.values:
        if (stored := _of_quantize(graph.definition(var))) is not None:
            found.setdefault(layer_of(var), set()).add(stored)
    return {node: min(stored) for node, stored in found.items() if node and len(stored) == 1}


def as_dtype(stored: Stored, dtype: str) -> Levels | None:
    """Return the levels of the same values stored as bytes of `dtype`, None for what are no bytes."""
    levels, own = stored
    moved = 0 if own == dtype else SHIFT.get((own, dtype))
    return None if moved is None else replace(levels, zero=levels.zero + moved)


def _told(specs: tuple[TensorSpec, ...], found: list[Stored | None]) -> tuple[TensorSpec, ...]:
    if len(specs) != len(found):
        return specs
    return tuple(
        spec if stored is None else replace(spec, levels=stored[0])
        for spec, stored in zip(specs, found, strict=True)
    )


def _of_input(graph: Graph, var: Any) -> Stored | None:
    """Return the levels that all readers of an input take it for, or None."""
    found = set(_readings(graph, var))
    return found.pop() if len(found) == 1 else None


def _readings(graph: Graph, var: Any) -> Iterator[Stored | None]:
    for reader in graph.readers(var):
        call = graph.definition(reader)
        yield _levels(call) if is_call(call, "relax.dequantize") and call.args[0].same_as(var) else None


def _of_quantize(call: Any) -> Stored | None:
    return _levels(call, str(call.attrs.out_dtype)) if is_call(call, "relax.quantize") else None


def _levels(call: Any, dtype: str = "") -> Stored | None:
    """Return the levels of a quantize or dequantize whose scale and zero point are one constant each."""
    scale, zero = number_of(call.args[1]), number_of(call.args[2])
    return None if scale is None or zero is None else (Levels(float(scale), int(zero)), dtype)
