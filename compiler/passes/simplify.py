"""Operators that do nothing are removed.

Casts, reshapes, transpositions, broadcasts and paddings to what is there already, adding 0, multiplying by 1,
concatenating one tensor, dropout, picking a field of a tuple just built, two reshapes or transpositions in a
row. Two constants added one after the other become one, also where the second is added between two reshapes
there and back (the masks of shifted windows); zeros around the input of a convolution become its padding.
What then has no reader goes with dead-code elimination.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax
from tvm_ffi import structural_equal

from compiler.ir.constants import array_of, constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass, static_extents


class _Simplify(Rewriter):
    name = "Simplify"

    def __init__(self) -> None:
        super().__init__()
        self._rules: dict[str, Callable[[Any], Any | None]] = {
            "relax.astype": self._same_type,
            "relax.broadcast_to": self._same_type,
            "relax.reshape": self._reshape,
            "relax.permute_dims": self._permute,
            "relax.add": self._add,
            "relax.subtract": lambda call: self._neutral(call, 0, either=False),
            "relax.multiply": lambda call: self._neutral(call, 1, either=True),
            "relax.divide": self._divide,
            "relax.concat": self._concat,
            "relax.nn.pad": self._pad,
            "relax.nn.conv2d": self._conv2d,
        }

    def rewrite(self, expr: Any) -> Any:
        if isinstance(expr, relax.TupleGetItem):
            return self._field(expr)
        rule = self._rules.get(expr.op.name) if is_call(expr, *self._rules) else None
        simpler = rule(expr) if rule is not None else None
        return expr if simpler is None else simpler

    def _field(self, item: Any) -> Any:
        source = self.definition(item.tuple_value)
        if isinstance(source, relax.Tuple):
            return source.fields[item.index]
        if item.index == 0 and is_call(source, "relax.nn.dropout"):
            return source.args[0]
        return item

    def _same_type(self, call: Any) -> Any | None:
        return call.args[0] if _equal_types(call.args[0].ty, self.old_type) else None

    def _reshape(self, call: Any) -> Any | None:
        inner = self.definition(call.args[0])
        if is_call(inner, "relax.reshape"):
            return relax.op.reshape(inner.args[0], call.args[1])
        if is_call(inner, "relax.add") and self.uses(call.args[0]) == 1:
            return self._added(inner)
        return call.args[0] if _equal_types(call.args[0].ty, self.old_type) else None

    def _added(self, added: Any) -> Any | None:
        """Return x + c' for reshape(reshape(x) + c) back to the shape of x, with a constant c."""
        for operand, other in (added.args, reversed(added.args)):
            source, value = self.definition(operand), array_of(other)
            if value is None or not is_call(source, "relax.reshape"):
                continue
            between, outside = static_extents(added.ty), static_extents(self.old_type)
            same = outside is not None and static_extents(source.args[0].ty) == outside
            if same and between is not None and static_extents(operand.ty) == between:
                whole = _least(np.broadcast_to(value, between).reshape(outside))
                moved = relax.op.add(source.args[0], constant(whole))
                simpler = self._add(moved)
                return moved if simpler is None else simpler
        return None

    def _permute(self, call: Any) -> Any | None:
        axes = _axes(call)
        if axes == list(range(len(axes))):
            return call.args[0]
        inner = self.definition(call.args[0])
        if is_call(inner, "relax.permute_dims"):
            return relax.op.permute_dims(inner.args[0], [_axes(inner)[axis] for axis in axes])
        return None

    def _add(self, call: Any) -> Any | None:
        """Drop an addition of 0, and add two constants in a row at once: (x + c) + d -> x + (c + d)."""
        for value, other in (call.args, reversed(call.args)):
            second, inner = array_of(other), self.definition(value)
            if second is None or not is_call(inner, "relax.add") or self.uses(value) != 1:
                continue
            for x, constant_of in (inner.args, reversed(inner.args)):
                first = array_of(constant_of)
                if first is not None and first.dtype == second.dtype:
                    return relax.op.add(x, constant(np.asarray(first + second)))
        return self._neutral(call, 0, either=True)

    def _neutral(self, call: Any, element: int, *, either: bool) -> Any | None:
        """Return the operand that stays when the other is `element` everywhere."""
        left, right = call.args
        pairs = [(left, right), (right, left)] if either else [(left, right)]
        for kept, other in pairs:
            value = array_of(other)
            if value is not None and value.size and (value == element).all():
                return kept if _equal_types(kept.ty, self.old_type) else None
        return None

    def _divide(self, call: Any) -> Any | None:
        value = array_of(call.args[1])
        if value is None or value.size != 1 or value.dtype.kind != "f" or (value == 1).all():
            return self._neutral(call, 1, either=False)
        # A power of two has an exact reciprocal, and a multiplication is several times cheaper.
        exact = abs(math.frexp(float(value.reshape(())))[0]) == 0.5
        return relax.op.multiply(call.args[0], constant((1 / value).astype(value.dtype))) if exact else None

    def _concat(self, call: Any) -> Any | None:
        parts = self.definition(call.args[0])
        fields = parts.fields if isinstance(parts, relax.Tuple) else []
        return fields[0] if len(fields) == 1 else None

    def _pad(self, call: Any) -> Any | None:
        return call.args[0] if not any(int(width) for width in call.attrs.pad_width) else None

    def _conv2d(self, call: Any) -> Any | None:
        """Make zeros around the input of a convolution its own padding."""
        pad, attrs = self.definition(call.args[0]), call.attrs
        if not is_call(pad, "relax.nn.pad") or attrs.data_layout != "NCHW" or self.uses(call.args[0]) != 1:
            return None
        widths = [int(width) for width in pad.attrs.pad_width]
        zeros = pad.attrs.pad_mode == "constant" and float(pad.attrs.pad_value) == 0
        if not zeros or len(widths) != 8 or any(widths[:4]) or min(widths) < 0:
            return None
        top, bottom, left, right = widths[4:]
        own = [int(width) for width in attrs.padding]
        return relax.op.nn.conv2d(
            pad.args[0],
            call.args[1],
            strides=attrs.strides,
            padding=[a + b for a, b in zip(own, (top, left, bottom, right), strict=True)],
            dilation=attrs.dilation,
            groups=int(attrs.groups),
            out_dtype=attrs.out_dtype,
        )


def _least(value: np.ndarray) -> np.ndarray:
    """Return `value` with one element along each axis over which it does not vary: it broadcasts back."""
    for axis in range(value.ndim):
        first = value.take([0], axis)
        if (value == first).all():
            value = first
    return value


def _axes(call: Any) -> list[int]:
    rank = call.args[0].ty.ndim
    given = call.attrs.axes
    return list(range(rank))[::-1] if given is None else [int(axis) % rank for axis in given]


def _equal_types(a: Any, b: Any) -> bool:
    """Tell whether two tensor types have the same dtype and the same known shape."""
    if static_extents(a) is not None:
        return static_extents(a) == static_extents(b) and str(a.dtype) == str(b.dtype)
    return isinstance(getattr(a, "shape", None), relax.ShapeExpr) and bool(structural_equal(a, b))


simplify = module_pass(_Simplify)
