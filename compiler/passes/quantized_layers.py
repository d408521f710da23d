"""Which layers of a quantized graph compute in integers, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import tvm

from compiler.ir.constants import array_of
from compiler.ir.graph import Graph
from compiler.ir.rewriter import is_call, static_shape
from compiler.passes.coded_weights import coded_weights
from compiler.passes.quantized_products import why_not_in_integers
from compiler.passes.quantized_weights import LAYERS, TWO_ACTIVATIONS, weights_of
from compiler.passes.small_convolutions import signs_of


def is_quantized(mod: tvm.IRModule) -> bool:
    """Tell whether `mod` has layers that read quantized values."""
    graph = Graph(mod)
    return any(is_call(graph.definition(var), "relax.quantize") for var in graph.values) and any(
        is_call(graph.definition(var), *LAYERS) for var in graph.values
    )


def layers_in_float(before: tvm.IRModule, after: tvm.IRModule) -> tuple[str, ...]:
    """Return notes on what lowering `before` to `after` made of the layers; none if nothing is quantized.

    The first says how many layers compute in integers, each other why some stay in float.
    """
    if not is_quantized(before):
        return ()
    layers = len(_layers(Graph(before), lambda var: True))
    graph = Graph(after)
    floats = _layers(graph, lambda var: str(var.ty.dtype) == "float32")
    notes = [f"{layers - len(floats)} of {layers} layers compute in integers"]
    found = Counter(_reason(graph, var) for var in floats)
    notes += [f"in float: {_count(name, count)} ({why})" for (name, why), count in found.most_common()]
    return tuple(notes)


def weights_in_float(mod: tvm.IRModule) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return the operators and the shapes of the weights that `mod`, where codes have found their kernels,
    still has to dequantize, or has as signs that no kernel of bits takes: they become float32 in the library.
    """
    graph = Graph(mod)

    def definition(expr: Any) -> Any:
        found = graph.definition(expr) if isinstance(expr, tvm.ir.Var) else None
        return expr if found is None else found

    def are_signs(call: Any) -> bool:
        values = array_of(call.args[1])
        return values is not None and bool((abs(values) == 1).all()) and signs_of(call, definition) is None

    found = []
    for var in _layers(graph, lambda var: str(var.ty.dtype) == "float32"):
        call = graph.definition(var)
        source, shape = definition(call.args[1]), static_shape(call.args[1])
        if shape is None or is_call(source, "relax.call_pure_packed"):
            continue
        if coded_weights(call.args[1], definition) is not None or are_signs(call):
            found.append((str(call.op.name), shape))
    return tuple(found)


def _layers(graph: Graph, wanted: Callable[[Any], bool]) -> list[Any]:
    return [var for var in graph.values if is_call(graph.definition(var), *LAYERS) and wanted(var)]


def _count(name: str, count: int) -> str:
    return f"{count} {name}{'s' if count > 1 else ''}"


_NAMES = {
    "relax.matmul": "matrix product",
    "relax.nn.conv2d_transpose": "transposed convolution",
}


def _reason(graph: Graph, var: Any) -> tuple[str, str]:
    """Return the kind of a layer in float, and why it is."""
    call = graph.definition(var)

    def definition(expr: Any) -> Any:
        found = graph.definition(expr) if isinstance(expr, tvm.ir.Var) else None
        return expr if found is None else found

    weights = weights_of(call, definition)
    name = _NAMES.get(call.op.name, "convolution")
    if weights == TWO_ACTIVATIONS:
        return name, _reason_of_product(graph, call)
    if isinstance(weights, str):
        return name, weights
    source = _source(graph, call.args[0])
    if is_call(source, "relax.dequantize"):
        return name, "the scale of its input is computed at run time"
    if is_call(call, "relax.nn.conv2d_transpose") and _reads_bytes(source):
        return name, "it is dilated or grouped"
    return name, "its input is not quantized"


def _reason_of_product(graph: Graph, call: Any) -> str:
    """Return why a product of two activations is in float."""
    sources = [_source(graph, operand) for operand in call.args]
    if any(is_call(source, "relax.dequantize") for source in sources):
        return "the scales of the two activations that it multiplies are computed at run time"
    quantized = [_reads_bytes(source) for source in sources]
    if not any(quantized):
        return TWO_ACTIVATIONS
    return (all(quantized) and why_not_in_integers(call)) or (
        "one of the two activations that it multiplies is not quantized"
    )


def _reads_bytes(source: Any) -> bool:
    return is_call(source, "relax.astype") and str(source.args[0].ty.dtype) in ("int8", "uint8")


def _source(graph: Graph, var: Any) -> Any:
    """Return what makes `var`, seen through what only moves or scales elements."""
    through = ("relax.reshape", "relax.permute_dims", "relax.multiply", "relax.add")
    while is_call(graph.definition(var), *through):
        var = graph.definition(var).args[0]
    return graph.definition(var)
