"""Fusion that keeps names: a call of a fused function is named by the layer that its result is.

`FuseOps` makes functions of groups of operators, one for all groups that are equal, and new variables of the
calls. What each stands for is found by following the function's bindings among those before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax

from compiler.ir.layers import layer_of
from compiler.ir.rewriter import Rewriter


def naming_groups(fuse: Callable[[tvm.IRModule], tvm.IRModule]) -> Callable[[tvm.IRModule], tvm.IRModule]:
    """Return `fuse`, made to name the calls of the functions that it makes."""

    def run(mod: tvm.IRModule) -> tvm.IRModule:
        fused = fuse(mod)
        return _Namer(mod, fused).run(fused)

    return run


class _Namer(Rewriter):
    """Gives each binding the layer of the old variable that it computes."""

    name = "NameGroups"

    def __init__(self, old: tvm.IRModule, new: tvm.IRModule) -> None:
        super().__init__()
        self._module = new
        self._waiting: dict[Any, list[Any]] = defaultdict(list)
        for binding in _bindings(old["main"]):
            self._waiting[_key(binding.value, {})].append(binding.var)
        known: dict[Any, Any] = dict(zip(new["main"].params, old["main"].params, strict=True))
        for binding in _bindings(new["main"]):
            known[binding.var] = self._follow(binding.value, known)
        # What prepares a layer was named by it, too, before it: the last of a name is its value.
        last = {layer_of(binding.var): binding.var for binding in _bindings(old["main"])}
        self._layers = {
            var: layer_of(before)
            for var, before in known.items()
            if isinstance(before, tvm.ir.Var) and before.same_as(last.get(layer_of(before), before))
        }

    def node(self) -> str:
        """Return the layer of what is rewritten."""
        return self._layers.get(self.old_var, "")

    def rewrite(self, expr: Any) -> Any:
        """Leave everything as it is."""
        return expr

    def _follow(self, value: Any, known: dict[Any, Any]) -> Any:
        """Return the old variable that `value` computes, or a list of them; None if it is not found."""
        function = self._called(value)
        if function is None:
            return self._find(value, known)
        inner = {p: known.get(a, a) for p, a in zip(function.params, value.args, strict=True)}
        for binding in _bindings(function):
            inner[binding.var] = self._find(binding.value, inner)
        return self._find(function.body.body, inner)

    def _called(self, value: Any) -> Any:
        """Return the fused function that `value` calls, if it does."""
        if not isinstance(value, tvm.ir.Call) or not isinstance(value.op, tvm.ir.GlobalVar):
            return None
        function = self._module[value.op]
        return function if isinstance(function, relax.Function) else None

    def _find(self, value: Any, known: dict[Any, Any]) -> Any:
        if isinstance(value, tvm.ir.Var):
            return known.get(value)
        if isinstance(value, relax.Tuple):
            return [self._find(each, known) for each in value.fields]
        if isinstance(value, relax.TupleGetItem) and isinstance(found := known.get(value.tuple_value), list):
            return found[value.index]
        waiting = self._waiting.get(_key(value, known))
        return waiting.pop(0) if waiting else None


def _key(value: Any, known: dict[Any, Any]) -> Any:
    """Return what is equal for equal expressions over the same old variables."""
    if isinstance(value, tvm.ir.GlobalVar):
        return value.name_hint
    if isinstance(value, tvm.ir.Var):
        old = known.get(value, value)
        return old if isinstance(old, tvm.ir.Var) else _key(old, known)
    if isinstance(value, tvm.ir.Call):
        return str(getattr(value.op, "name", "")), *(_key(each, known) for each in value.args)
    if isinstance(value, relax.Tuple):
        return tuple(_key(each, known) for each in value.fields)
    if isinstance(value, relax.TupleGetItem):
        return _key(value.tuple_value, known), value.index
    return type(value).__name__


def _bindings(function: Any) -> list[Any]:
    return [binding for block in function.body.blocks for binding in block.bindings]
