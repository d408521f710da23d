"""Symbolic sizes: PyTorch writes them as sympy expressions, Relax as TIR integers."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from typing import Any
from weakref import WeakKeyDictionary

import sympy  # type: ignore[import-untyped]
import torch
from tvm import sym, tirx

from compiler.support.errors import ModelError

Dim = Any
"""A Python int, or an int64 TIR expression over the symbols of the function's inputs."""

_VARIABLES: WeakKeyDictionary[Any, dict[str, Dim]] = WeakKeyDictionary()


def dim_of(size: Any, importer: Any) -> Dim:
    """Translate one size of a tensor.

    Takes an int, a `torch.SymInt` or an already translated TIR expression. Raises `ModelError` for a size
    that depends on data (an unbacked symbol) or is written with a function that has no TIR form.
    """
    if isinstance(size, torch.SymInt):
        return simplify(to_tir(size.node.expr, variables(importer)))
    return int(size) if isinstance(size, (int, tirx.IntImm)) else size


def simplify(expr: Dim) -> Dim:
    """Simplify a TIR integer; a constant becomes a Python int."""
    if isinstance(expr, int):
        return expr
    simple = sym.Analyzer().simplify(expr)
    return int(simple) if isinstance(simple, tirx.IntImm) else simple


def variables(importer: Any) -> dict[str, Dim]:
    """Return the TIR variable of every symbol that occurs in the shape of an input, by name.

    Kiln's importer says itself (`sizes`) how each symbol follows from the inputs; TVM's does not.
    """
    sizes: dict[str, Dim] | None = getattr(importer, "sizes", None)
    if sizes is not None:
        return sizes
    known = _VARIABLES.get(importer)
    if known is None:
        known = {}
        for node, value in importer.env.items():
            if node.op != "placeholder" or not hasattr(value, "ty") or not hasattr(value.ty, "shape"):
                continue
            for dim in value.ty.shape.values:
                for variable in tirx.analysis.undefined_vars(dim):
                    known[variable.name] = variable
        _VARIABLES[importer] = known
    return known


def to_tir(expr: Any, known: dict[str, Dim]) -> Dim:
    """Translate a sympy integer expression over `known` symbols into TIR (sizes are never negative)."""
    if isinstance(expr, sympy.Integer) or expr.is_Integer:
        return int(expr)
    if isinstance(expr, sympy.Symbol):
        if str(expr) not in known:
            raise ModelError(
                f"expected every size to follow from the input shapes, got '{expr}', which depends on the "
                "values of a tensor; compute such sizes outside of the model"
            )
        return known[str(expr)]
    name = type(expr).__name__
    if name in _ROUNDINGS:
        return _rounded(name, *_ratio(expr.args[0], known))
    if name not in _OPERATORS:
        raise ModelError(
            f"expected a size made of + - * // % min max, got '{expr}'; export with fixed sizes there"
        )
    terms = [to_tir(arg, known) for arg in expr.args]
    return _OPERATORS[name](terms)


def _ratio(expr: Any, known: dict[str, Dim]) -> tuple[Dim, int]:
    """Translate a float made of sizes, such as ``0.5 * h``, into a quotient of integers.

    Only dyadic factors are taken: with others (0.7), a product rounded in floating point, as PyTorch computes
    it, may fall on another side of an integer than the exact one.
    """
    if isinstance(expr, sympy.Float):
        fraction = Fraction(float(expr))
        if fraction.denominator > _DYADIC:
            raise ModelError(
                f"expected sizes scaled by a factor such as 2 or 0.5, got {expr}; give the output size"
            )
        return fraction.numerator, fraction.denominator
    name = type(expr).__name__
    if name == "ToFloat":
        return to_tir(expr.args[0], known), 1
    if name in ("Mul", "Add", "IntTrueDiv", "FloatTrueDiv"):
        parts = [_ratio(arg, known) for arg in expr.args]
        if name == "Mul":
            return _mul([top for top, _ in parts]), math.prod(bottom for _, bottom in parts)
        if name == "Add":
            common = math.lcm(*(bottom for _, bottom in parts))
            return sum(top * (common // bottom) for top, bottom in parts), common
        (top, bottom), (divisor, scale) = parts
        if isinstance(divisor, int) and divisor > 0:
            return top * scale, bottom * divisor
    return to_tir(expr, known), 1


def _rounded(name: str, top: Dim, bottom: int) -> Dim:
    """Round a quotient of non-negative integers."""
    shift = {"CeilToInt": bottom - 1}.get(name, 0)
    return simplify(tirx.floordiv(_int64(top + shift), _int64(bottom)))


_DYADIC = 2**20
_ROUNDINGS = ("TruncToInt", "FloorToInt", "CeilToInt")


def _power(terms: list[Dim]) -> Dim:
    base, exponent = terms
    if not isinstance(exponent, int) or exponent < 0:
        raise ModelError(f"expected a size raised to a fixed power, got '{base}**{exponent}'")
    return reduce(lambda a, b: a * b, [base] * exponent, 1)


def _mul(terms: list[Dim]) -> Dim:
    return reduce(lambda a, b: a * b, terms)


def _int64(term: Dim) -> Dim:
    return tirx.IntImm("int64", term) if isinstance(term, int) else term


def _floor_div(terms: list[Dim]) -> Dim:
    return tirx.floordiv(_int64(terms[0]), _int64(terms[1]))


def _floor_mod(terms: list[Dim]) -> Dim:
    return tirx.floormod(_int64(terms[0]), _int64(terms[1]))


_OPERATORS: dict[str, Callable[[list[Dim]], Dim]] = {
    "Add": lambda terms: reduce(lambda a, b: a + b, terms),
    "Mul": _mul,
    "Pow": _power,
    "PowByNatural": _power,
    "FloorDiv": _floor_div,
    "CleanDiv": _floor_div,
    "Mod": _floor_mod,
    "PythonMod": _floor_mod,
    "Max": lambda terms: reduce(lambda a, b: tirx.max(_int64(a), _int64(b)), terms),
    "Min": lambda terms: reduce(lambda a, b: tirx.min(_int64(a), _int64(b)), terms),
}
