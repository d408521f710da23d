"""A graph to look at: who makes and who reads each value of ``main``. Tuples are seen through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tvm
from tvm import relax


class Graph:
    """The values of ``main``, which are its inputs and its bound variables.

    A tuple is no value of its own: whoever reads it reads its fields, and a field of what an operator gives
    as a tuple (`relax.split`) is made of the operator's operands.

    Attributes:
        inputs: the parameters.
        values: every variable that is bound to something other than a tuple, in order.
        outputs: what the function returns, as far as it is computed in it.
    """

    def __init__(self, mod: tvm.IRModule) -> None:
        function = mod["main"]
        self.inputs: list[Any] = list(function.params)
        self._definitions: dict[Any, Any] = {
            binding.var: binding.value for block in function.body.blocks for binding in block.bindings
        }
        self.values = [var for var in self._definitions if not isinstance(var.ty, relax.TupleType)]
        self.outputs = list(self._flat(function.body.body))
        self._readers: dict[Any, list[Any]] = {var: [] for var in (*self.inputs, *self.values)}
        for var in self.values:
            for operand in dict.fromkeys(self.operands(var)):
                if operand in self._readers:
                    self._readers[operand].append(var)

    @property
    def has_control_flow(self) -> bool:
        """Whether there are branches, which nothing here looks into."""
        return any(isinstance(value, relax.If) for value in self._definitions.values())

    def definition(self, var: Any) -> Any:
        """Return what computes a value: of a field of a tuple, what computes the tuple; None for an input."""
        value = self._definitions.get(var)
        if isinstance(value, relax.MatchCast):
            return value.value
        return self._through(value) if isinstance(value, relax.TupleGetItem) else value

    def operands(self, var: Any) -> list[Any]:
        """Return the tensors that a value is computed from: variables and constants, in order."""
        call = self.definition(var)
        if isinstance(call, tvm.ir.Call):
            return [field for argument in call.args for field in self._flat(argument)]
        return [] if call is None else list(self._flat(call))

    def readers(self, var: Any) -> list[Any]:
        """Return the values that are computed from `var`, in order."""
        return self._readers[var]

    def _through(self, item: Any) -> Any:
        """Return the field of a tuple that is built in the graph, or the call that gives the tuple."""
        source = self._definitions.get(item.tuple_value, item.tuple_value)
        return source.fields[item.index] if isinstance(source, relax.Tuple) else source

    def _flat(self, expr: Any) -> Iterator[Any]:
        """Yield the tensors in `expr`: variables and constants."""
        source = self._definitions.get(expr) if isinstance(expr, tvm.ir.Var) else expr
        if isinstance(source, relax.Tuple):
            for field in source.fields:
                yield from self._flat(field)
        elif isinstance(expr, (tvm.ir.Var, tvm.ir.GenericConst)):
            yield expr
