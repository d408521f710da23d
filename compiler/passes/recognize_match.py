"""What the recognizers of hand-written forms share: constants, casts, products and polynomials.

A recognizer looks backward from the last operator of a form. It never minds in which order a sum or a product
was written, whether a constant was divided by or its reciprocal multiplied with, or how a power was spelled.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm import relax

from compiler.ir.constants import array_of
from compiler.ir.rewriter import Rewriter, is_call

Polynomial = dict[int, float]
"""Coefficients by exponent."""


def close(value: float | None, wanted: float) -> bool:
    """Tell whether a constant is `wanted` up to the digits people write."""
    return value is not None and math.isclose(value, wanted, rel_tol=1e-4, abs_tol=1e-12)


def first(*candidates: Any) -> Any:
    """Return the first of `candidates` that is not None (expressions have no truth value)."""
    return next(candidate for candidate in candidates if candidate is not None)


def dtype_of(x: Any) -> str:
    """Return the element type of a tensor expression."""
    return str(x.ty.dtype.dtype)


class Recognizer(Rewriter):
    """Base of the recognizers."""

    def call(self, x: Any, *names: str) -> Any | None:
        """Return the call of one of the operators `names` that defines `x`, or None."""
        found = self.definition(x)
        return found if is_call(found, *(f"relax.{name}" for name in names)) else None

    def number(self, x: Any) -> float | None:
        """Return the value of a constant of one element, or None."""
        value = array_of(self.definition(x))
        return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None

    def uncast(self, x: Any) -> Any:
        """Go back through casts between floating-point types."""
        cast = self.call(x, "astype")
        while cast is not None and "float" in dtype_of(cast.args[0]):
            x = cast.args[0]
            cast = self.call(x, "astype")
        return x

    def same(self, x: Any, y: Any) -> bool:
        """Tell whether two operands are one value, casts aside."""
        x, y = self.uncast(x), self.uncast(y)
        return bool(x is y or (hasattr(x, "same_as") and x.same_as(y)))

    def factors(self, x: Any) -> tuple[float, list[Any]]:
        """Write `x` as a number times a list of tensors, through products and divisions by constants."""
        call = self.call(x, "multiply", "divide", "negative")
        if call is None:
            return 1.0, [x]
        if call.op.name == "relax.negative":
            number, tensors = self.factors(call.args[0])
            return -number, tensors
        left, right = call.args
        if call.op.name == "relax.divide":
            divisor = self.number(right)
            if divisor is None or divisor == 0:
                return 1.0, [x]
            number, tensors = self.factors(left)
            return number / divisor, tensors
        for one, other in ((left, right), (right, left)):
            constant = self.number(one)
            if constant is not None:
                number, tensors = self.factors(other)
                return number * constant, tensors
        left_number, left_tensors = self.factors(left)
        right_number, right_tensors = self.factors(right)
        return left_number * right_number, left_tensors + right_tensors

    def polynomial(self, y: Any, x: Any) -> Polynomial | None:
        """Write `y` as a polynomial in the tensor `x`, or return None where it is none."""
        if self.same(y, x):
            return {1: 1.0}
        number = self.number(y)
        if number is not None:
            return {0: number}
        call = self.call(y, "add", "subtract", "multiply", "divide", "power", "square", "negative")
        if call is None:
            return None
        terms = [self.polynomial(argument, x) for argument in call.args]
        if any(term is None for term in terms):
            return None
        return _combine(call.op.name.removeprefix("relax."), [term for term in terms if term is not None])

    def split(self, tensors: list[Any], kind: str) -> tuple[list[Any], list[Any]]:
        """Part `tensors` into those defined by the operator `kind` and the others."""
        ours = [t for t in tensors if self.call(t, kind) is not None]
        return ours, [t for t in tensors if self.call(t, kind) is None]

    def mean_of(self, x: Any) -> tuple[Any, list[int]] | None:
        """Match a mean that keeps its axes, also written as a sum over the count; give operand and axes."""
        call = self.call(x, "mean")
        if call is not None:
            return _kept_axes(call)
        number, tensors = self.factors(x)
        total = self.call(tensors[0], "sum") if len(tensors) == 1 else None
        matched = _kept_axes(total) if total is not None else None
        sizes = static_shape_of_axes(*matched) if matched is not None else None
        return matched if sizes is not None and close(number, 1 / math.prod(sizes)) else None

    def squared(self, x: Any) -> Any | None:
        """Match ``y * y``, ``y ** 2`` or ``square(y)``; give ``y``."""
        call = self.call(x, "multiply", "power", "square")
        if call is None:
            return None
        if call.op.name == "relax.multiply":
            return call.args[0] if self.same(*call.args) else None
        return call.args[0] if call.op.name == "relax.square" or self.number(call.args[1]) == 2 else None

    def divided_by_root(self, x: Any) -> tuple[Any, Any, float] | None:
        """Match ``y / sqrt(z + eps)``, also with ``rsqrt`` or ``1 / sqrt``; give ``y, z, eps``."""
        call = self.call(x, "multiply", "divide")
        if call is None:
            return None
        if call.op.name == "relax.divide":
            inner = self._root(call.args[1])
            return None if inner is None else self._with_epsilon(call.args[0], inner)
        for y, root in (tuple(call.args), tuple(call.args)[::-1]):
            inner = self._inverse_root(root)
            if inner is not None:
                return self._with_epsilon(y, inner)
        return None

    def _with_epsilon(self, y: Any, total: Any) -> tuple[Any, Any, float] | None:
        call = self.call(total, "add")
        for z, eps in () if call is None else (tuple(call.args), tuple(call.args)[::-1]):
            number = self.number(eps)
            if number is not None:
                return y, z, number
        return None

    def _root(self, x: Any) -> Any | None:
        call = self.call(x, "sqrt", "power")
        if call is None:
            return None
        return call.args[0] if call.op.name == "relax.sqrt" or self.number(call.args[1]) == 0.5 else None

    def _inverse_root(self, x: Any) -> Any | None:
        call = self.call(x, "rsqrt", "divide", "power")
        if call is None:
            return None
        if call.op.name == "relax.rsqrt":
            return call.args[0]
        if call.op.name == "relax.power":
            return call.args[0] if self.number(call.args[1]) == -0.5 else None
        return self._root(call.args[1]) if self.number(call.args[0]) == 1 else None


def _kept_axes(call: Any) -> tuple[Any, list[int]] | None:
    """Return operand and sorted axes of a reduction that keeps its axes."""
    if not call.attrs.keepdims or call.attrs.axis is None:
        return None
    rank = len(call.args[0].ty.shape.values)
    return call.args[0], sorted(int(axis) % rank for axis in call.attrs.axis)


def _combine(name: str, terms: list[Polynomial]) -> Polynomial | None:
    first = terms[0]
    if name == "negative":
        return {power: -c for power, c in first.items()}
    if name == "square":
        return _product(first, first)
    second = terms[1]
    if name in ("add", "subtract"):
        sign = 1 if name == "add" else -1
        return {p: first.get(p, 0.0) + sign * second.get(p, 0.0) for p in {*first, *second}}
    if name == "multiply":
        return _product(first, second)
    if set(second) != {0}:
        return None
    if name == "divide":
        return {power: c / second[0] for power, c in first.items()} if second[0] else None
    exponent, result = second[0], {0: 1.0}
    if exponent not in (1, 2, 3, 4):
        return None
    for _ in range(int(exponent)):
        result = _product(result, first)
    return result


def _product(left: Polynomial, right: Polynomial) -> Polynomial:
    result: Polynomial = {}
    for p, a in left.items():
        for q, b in right.items():
            result[p + q] = result.get(p + q, 0.0) + a * b
    return result


def is_polynomial(found: Polynomial | None, **wanted: float) -> bool:
    """Tell whether `found` has exactly the coefficients ``x0=..., x1=...`` (by exponent)."""
    if found is None:
        return False
    target = {int(name[1:]): value for name, value in wanted.items()}
    kept = {power for power, c in found.items() if c != 0}
    return kept == set(target) and all(close(found[power], c) for power, c in target.items())


def filled(shape: list[int], value: float, dtype: str) -> Any:
    """Make a constant of `shape` holding one number."""
    return relax.const(np.full(shape, value, dtype=dtype), dtype)


def holds_only(x: Any, value: float) -> bool:
    """Tell whether `x` is a constant all of whose elements are `value`."""
    array = array_of(x)
    return array is not None and bool(np.all(array == value))


def along(x: Any, axes: list[int], data: Any) -> Any | None:
    """Give the constant `x` as a tensor over just `axes` of `data`, or None if it varies elsewhere.

    `x` broadcasts against `data` from the right and must span all of `axes`.
    """
    array, shape = array_of(x), static_shape_of_axes(data, axes)
    rank = len(data.ty.shape.values)
    if array is None or shape is None or array.ndim > rank:
        return None
    padded = (1,) * (rank - array.ndim) + array.shape
    wanted = tuple(shape[axes.index(axis)] if axis in axes else 1 for axis in range(rank))
    return relax.const(array.reshape(shape), str(array.dtype)) if padded == wanted else None


def static_shape_of_axes(data: Any, axes: list[int]) -> list[int] | None:
    """Return the sizes of `axes` of `data`, or None if one of them is symbolic."""
    sizes = [data.ty.shape.values[axis] for axis in axes]
    return [int(s) for s in sizes] if all(hasattr(s, "value") for s in sizes) else None
