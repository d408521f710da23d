"""Elementwise operators between two bytes become a table of what they make of each of 256 codes.

    quantize(f(dequantize(q, s, z)), t, y)  ->  table[q],   table = what that gives for all q

f may be any number of operators, other roundings to bytes among them, that all compute from the one byte. The
table is what they compute of all codes at compile time; functions such as exp in double precision, so that it
does not depend on whose approximation is at hand.

A function that can be computed in the registers of the kernel that gives the bytes stays there: with a table
the bytes would be written and read once more. Of the others, those are tabulated that would take longer in
floats. Measured on a Zen 4, nanoseconds a byte:

| | AVX-512 | AVX2 |
|---|---|---|
| dequantize, quantize | 0.13 | 0.16 |
| with ReLU6 | 0.16 | 0.20 |
| with hard swish | 0.19 | 0.25 |
| with sigmoid | 0.38 | 0.55 |
| with tanh | 0.61 | 0.94 |
| ``vpermi2b`` | 0.05 | |
| ``vpshufb`` | 0.17 | |
| loads | 0.30 | 0.25 |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from compiler.ir.constants import array_of, constant
from compiler.ir.graph import Graph
from compiler.ir.rewriter import Rewriter, is_call, module_pass
from compiler.passes.kernels import OPAQUE
from compiler.passes.kernels.lookup import instruction, lookup
from compiler.passes.kernels.quantize import legalizations
from compiler.target import Target

_BYTES = ("int8", "uint8")
_CHEAP = (
    "relax.abs", "relax.add", "relax.astype", "relax.clip", "relax.dequantize", "relax.divide",
    "relax.maximum", "relax.minimum", "relax.multiply", "relax.negative", "relax.nn.leakyrelu",
    "relax.nn.relu", "relax.nn.relu6", "relax.quantize", "relax.subtract",
)  # fmt: skip
"""Operators that are an instruction or two."""
_DEAR = (
    "relax.erf", "relax.exp", "relax.log", "relax.nn.gelu", "relax.nn.gelu_tanh", "relax.nn.silu",
    "relax.nn.softplus", "relax.power", "relax.rsqrt", "relax.sigmoid", "relax.sqrt", "relax.tanh",
)  # fmt: skip
"""Operators that are many."""
_LOOKUP_COST = {"vpermi2b": 2, "tbl": 3, "vpshufb": 7, "plain": 10}
"""What a lookup costs, where a cheap operator costs 1 and a dear one ten."""
_DEAR_COST, _ROUND_TRIP_COST = 10, 5


class _Tabulate(Rewriter):
    name = "Tabulate"
    lookup_cost = 0

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        graph = Graph(mod)
        chains = {} if graph.has_control_flow else _chains(graph, self.lookup_cost)
        self._sources = {var: chain[0] for var, chain in chains.items()}
        self._tables = dict(zip(chains, _tables(graph, chains), strict=True))
        return super().run(mod) if chains else mod

    def rewrite(self, expr: Any) -> Any:
        if self.old_var not in self._tables:
            return expr
        source, table = self.new(self._sources[self.old_var]), self._tables[self.old_var]
        if str(table.dtype) == str(source.ty.dtype) and (table.view("uint8") == np.arange(256)).all():
            return source  # such as a ReLU of what is not negative
        return self.builder.call_te(
            lookup,
            source,
            constant(table),
            primfunc_name_hint="lookup",
            primfunc_attrs={"op_pattern": OPAQUE},
        )


def _chains(graph: Graph, lookup_cost: int) -> dict[Any, list[Any]]:
    """Return for each `quantize` to tabulate its bytes, and what computes it of those, in order."""
    origins: dict[Any, Any] = {}
    found: dict[Any, list[Any]] = {}
    for var in graph.values:
        origin = _origin(graph, var, origins)
        if origin is None:
            continue
        origins[var] = origin
        if not is_call(graph.definition(var), "relax.quantize"):
            continue
        steps = _steps(graph, var, origins)
        if _cost(graph, steps) > lookup_cost and not _in_registers(graph, var, origins):
            found[var] = [origin, *steps]
        else:
            del origins[var]  # what follows may be a function of these bytes
    return found


def _origin(graph: Graph, var: Any, origins: dict[Any, Any]) -> Any | None:
    """Return the bytes that `var` is an elementwise function of, or None."""
    call = graph.definition(var)
    if not is_call(call, *_CHEAP, *_DEAR):
        return None
    if is_call(call, "relax.quantize", "relax.dequantize"):
        if not _is_per_tensor(call):
            return None
        data = graph.operands(var)[0]
        own = data if is_call(call, "relax.dequantize") and isinstance(data, tvm.ir.Var) else None
        return origins.get(data, own)
    tensors = [operand for operand in graph.operands(var) if not _is_number(operand)]
    sources = {origins.get(tensor) for tensor in tensors}
    if len(sources) != 1 or str(var.ty.dtype) != "float32":
        return None
    origin = sources.pop()
    same = origin is not None and tvm_ffi.structural_equal(var.ty.shape, origin.ty.shape)
    return origin if same else None


def _is_per_tensor(call: Any) -> bool:
    """Tell whether `call` is between floats and bytes, with one constant scale and zero point."""
    dtypes = {str(call.args[0].ty.dtype), str(call.attrs.out_dtype)}
    known = all(_is_number(argument) for argument in call.args[1:])
    return known and dtypes in ({"float32", name} for name in _BYTES)


def _is_number(expr: Any) -> bool:
    value = array_of(expr)
    return value is not None and value.size == 1


def _steps(graph: Graph, last: Any, origins: dict[Any, Any]) -> list[Any]:
    """Return what `last` is computed by from its origin, in order."""
    found: dict[Any, None] = {}

    def visit(var: Any) -> None:
        if var in found or var not in origins:
            return
        for operand in graph.operands(var):
            if isinstance(operand, tvm.ir.Var) and not operand.same_as(origins[var]):
                visit(operand)
        found[var] = None

    visit(last)
    return list(found)


def _cost(graph: Graph, steps: list[Any]) -> int:
    """Return what `steps` cost in floats; nothing where the same levels come back."""
    calls = [graph.definition(var) for var in steps]
    if len(calls) == 2 and _same_levels(*calls):
        return 0
    between = [call for call in calls if not is_call(call, "relax.dequantize")][:-1]
    return _ROUND_TRIP_COST + sum(_DEAR_COST if is_call(call, *_DEAR) else 1 for call in between)


def _same_levels(dequantize: Any, quantize: Any) -> bool:
    pairs = zip(dequantize.args[1:], quantize.args[1:], strict=True)
    numbers = all(array_of(a) == array_of(b) for a, b in pairs)
    return numbers and str(dequantize.args[0].ty.dtype) == str(quantize.attrs.out_dtype)


def _in_registers(graph: Graph, last: Any, origins: dict[Any, Any]) -> bool:
    """Tell whether the kernel that makes the bytes can also compute `last` of them, and need not write them.

    Rounded floats that nothing else reads: all that is computed of them leads to `last`.
    """
    origin, seen = origins[last], set()
    if not is_call(graph.definition(origin), "relax.quantize"):
        return False

    def leads_there(var: Any) -> bool:
        if var in seen or var.same_as(last):
            return True
        seen.add(var)
        inside = var.same_as(origin) or var in origins
        return (
            inside
            and not any(var.same_as(output) for output in graph.outputs)
            and all(leads_there(reader) for reader in graph.readers(var))
        )

    return leads_there(origin)


def _tables(graph: Graph, chains: dict[Any, list[Any]]) -> list[np.ndarray]:
    """Return what each of `chains` makes of all codes, in the order of the codes as unsigned bytes."""
    if not chains:
        return []
    builder = relax.BlockBuilder()
    with builder.function("main", []):
        with builder.dataflow():
            tables = [_table(builder, graph, *chain) for chain in chains.values()]
            output = builder.emit_output(relax.Tuple(tables))
        builder.emit_func_output(output)
    target = tvm.target.Target({"kind": "llvm"})
    with target:
        mod = relax.transform.LegalizeOps(legalizations(cpu=False))(builder.finalize())
        machine = relax.VirtualMachine(relax.build(mod, target), tvm.cpu())
    return [table.numpy() for table in machine["main"]()]


def _table(builder: relax.BlockBuilder, graph: Graph, origin: Any, *steps: Any) -> Any:
    """Bind what `steps` compute of all codes of the type of `origin`."""
    codes = np.arange(256, dtype="uint8").view(str(origin.ty.dtype))
    made = {origin: constant(codes)}
    for var in steps:
        call = graph.definition(var)
        operands = [made.get(each, each) if isinstance(each, tvm.ir.Var) else each for each in call.args]
        made[var] = builder.emit(_on_vector(builder, call, operands))
    return made[steps[-1]]


def _on_vector(builder: relax.BlockBuilder, call: Any, operands: list[Any]) -> Any:
    """Return `call` on a vector of all codes instead of a tensor; what is dear in double precision."""
    numbers = [_scalar(each) for each in operands]
    if is_call(call, "relax.quantize"):
        return relax.op.quantize(*numbers, axis=0, out_dtype=call.attrs.out_dtype)
    if is_call(call, "relax.dequantize"):
        return relax.op.dequantize(*numbers, axis=0, out_dtype=call.attrs.out_dtype)
    if not is_call(call, *_DEAR):
        return relax.Call(call.op, numbers, call.attrs, call.ty_args)
    wide = [builder.emit(relax.op.astype(each, "float64")) for each in numbers]
    exact = builder.emit(relax.Call(call.op, wide, call.attrs, call.ty_args))
    return relax.op.astype(exact, "float32")


def _scalar(expr: Any) -> Any:
    """Return a constant of one element without its axes; all else stays."""
    value = array_of(expr)
    return expr if value is None or value.size != 1 else constant(value.reshape(()))


def tabulate(target: Target) -> Callable[[tvm.IRModule], tvm.IRModule]:
    """Return the pass for `target`, which says what a lookup costs."""
    cost = _LOOKUP_COST[instruction(target)]
    return module_pass(type("_Tabulate", (_Tabulate,), {"lookup_cost": cost}))
