"""A graph rewriter in plain Python: walk the bindings of a Relax function once and rebuild it.

TVM's `PyExprMutator` crosses the FFI for every node; a whole network is a straight list of bindings, so a
loop over that list is both faster and easier to read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import tvm
from tvm import relax

from compiler.ir.layers import hint, layer_of


class Rewriter:
    """Base of passes that look at one binding at a time.

    A subclass overrides `rewrite`. It gets each bound expression with its arguments already rewritten and
    returns what to bind instead (or the expression itself). Inside, `definition` finds what a variable is
    bound to in the new function, `uses` counts its readers in the old one, `old_var` is the variable of the
    binding at hand in the old function and `old_type` its type, `new` finds what became of another one, and
    `emit` adds a binding, named by the layer that the old one computes. `inputs`, `begin` and `finish` may
    change what the function takes, what stands for its inputs, and what it returns.
    """

    name: ClassVar[str] = "Rewriter"

    def __init__(self) -> None:
        self.builder: relax.BlockBuilder = relax.BlockBuilder()
        self.old_var: Any = None
        self.old_type: Any = None
        self._new: dict[Any, Any] = {}
        self._definitions: dict[Any, Any] = {}
        self._readers: dict[Any, int] = {}

    def rewrite(self, expr: Any) -> Any:
        """Return what stands for `expr`, whose operands are rewritten already."""
        raise NotImplementedError

    def inputs(self, params: list[Any]) -> list[Any]:
        """Return what the function takes instead of `params`."""
        return params

    def begin(self, params: list[Any]) -> None:
        """Emit what comes before all else; `replace` says what stands for one of `params`."""

    def finish(self, value: Any) -> Any:
        """Return what the function returns instead of `value`, which is rewritten already."""
        return value

    def new(self, var: Any) -> Any:
        """Return what became of a variable of the old function."""
        return self._new[var]

    def replace(self, param: Any, value: Any) -> None:
        """Have all that follows read `value` where the old function reads its input `param`."""
        self._new[param] = value

    def emit(self, expr: Any) -> Any:
        """Bind `expr` in the new function and return the variable; constants and variables stay."""
        if isinstance(expr, (tvm.ir.Var, tvm.ir.GenericConst, relax.ShapeExpr)):
            return expr
        var = self.builder.emit(expr, hint(self.node()))
        self._definitions[var] = expr
        return var

    def node(self) -> str:
        """Return the node of the user's model that the binding at hand computes, empty if not known."""
        return layer_of(self.old_var)

    def definition(self, expr: Any) -> Any:
        """Return what the variable `expr` is bound to, or `expr` itself if it is no bound variable."""
        return self._definitions.get(expr, expr) if isinstance(expr, tvm.ir.Var) else expr

    def uses(self, var: Any) -> int:
        """Return how many places of the old function read what became `var`."""
        return self._readers.get(var, 0)

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        """Rewrite ``main`` of `mod`; the other functions stay, and so does one with control flow."""
        function = mod["main"]
        if any(isinstance(b.value, relax.If) for block in function.body.blocks for b in block.bindings):
            return mod
        others = {name: other for name, other in mod.functions_items() if name.name_hint != "main"}
        self.builder = relax.BlockBuilder(tvm.IRModule(others))
        counts = _count_uses(function)
        self._new = {param: param for param in function.params}
        self._definitions, self._readers = {}, {param: counts[param] for param in function.params}
        params = self.inputs(list(function.params))
        with self.builder.function("main", params, attrs=_attributes(function)):
            with self.builder.dataflow():
                self.begin(params)
                bindings = [b for block in function.body.blocks for b in block.bindings]
                returned = bindings.pop() if _ends_in_result(function, bindings) else None
                for binding in bindings:
                    self._visit(binding, counts[binding.var])
                value = self._map(function.body.body) if returned is None else self._rewritten(returned)
                result = self.builder.emit_output(self.finish(value))
            self.builder.emit_func_output(result)
        return self.builder.finalize()

    def _visit(self, binding: Any, readers: int) -> None:
        if isinstance(binding, relax.MatchCast):
            var = self.builder.match_cast(self._map(binding.value), binding.ty)
            self._definitions[var] = binding.value
        else:
            var = self.emit(self._rewritten(binding))
        self._new[binding.var] = var
        # A pass may merge two old variables into one new one; count all readers of both.
        self._readers[var] = self._readers.get(var, 0) + readers

    def _rewritten(self, binding: Any) -> Any:
        self.old_var, self.old_type = binding.var, binding.var.ty
        return self.rewrite(self._map(binding.value))

    def _map(self, expr: Any) -> Any:
        """Return `expr` with old variables replaced by new ones."""
        if isinstance(expr, tvm.ir.Var):
            return self._new.get(expr, expr)
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._map(field) for field in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(self._map(expr.tuple_value), expr.index)
        if isinstance(expr, tvm.ir.Call) and not isinstance(expr.op, tvm.ir.Var):
            return relax.Call(expr.op, [self._map(a) for a in expr.args], expr.attrs, expr.ty_args)
        return expr


def is_call(expr: Any, *names: str) -> bool:
    """Tell whether `expr` calls one of the operators `names`, such as ``relax.add``."""
    return isinstance(expr, tvm.ir.Call) and isinstance(expr.op, tvm.ir.Op) and expr.op.name in names


def static_shape(expr: Any) -> tuple[int, ...] | None:
    """Return the shape of a tensor, or None if a dimension is symbolic or the rank unknown."""
    return static_extents(expr.ty)


def static_extents(ty: Any) -> tuple[int, ...] | None:
    """Return the shape of the tensor type `ty`, or None if a dimension is symbolic or the rank unknown."""
    shape = getattr(ty, "shape", None)
    if not isinstance(shape, relax.ShapeExpr):
        return None
    extents = [dim.value if isinstance(dim, tvm.tirx.IntImm) else dim for dim in shape.values]
    return tuple(extents) if all(isinstance(extent, int) for extent in extents) else None


def module_pass(rewriter: type[Rewriter]) -> Callable[[tvm.IRModule], tvm.IRModule]:
    """Return a TVM module pass that runs `rewriter` and removes what it left unused."""

    def run(mod: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
        return relax.transform.DeadCodeElimination()(rewriter().run(mod))

    made: Callable[[tvm.IRModule], tvm.IRModule]
    made = tvm.transform.module_pass(run, opt_level=0, name=rewriter.name)
    return made


def _ends_in_result(function: Any, bindings: list[Any]) -> bool:
    """Tell whether the last binding makes what `function` returns."""
    last = bindings[-1] if bindings else None
    return isinstance(last, relax.VarBinding) and last.var.same_as(function.body.body)


def _attributes(function: Any) -> dict[str, Any]:
    return dict(function.attrs.items()) if function.attrs else {}


def _count_uses(function: Any) -> Counter[Any]:
    """Count the places that read each variable of `function`."""
    counts: Counter[Any] = Counter()

    def count(expr: Any) -> None:
        if isinstance(expr, tvm.ir.Var):
            counts[expr] += 1

    for block in function.body.blocks:
        for binding in block.bindings:
            relax.analysis.post_order_visit(binding.value, count)
    relax.analysis.post_order_visit(function.body.body, count)
    return counts
