"""Sums, extrema, statistics, sorting and scans."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from compiler.frontend.converters.logic import truth
from compiler.frontend.converters.registry import Call, converter, dtype_of, is_float, scalar, shape_of
from compiler.frontend.converters.shapes import reshape
from compiler.frontend.converters.symbols import Dim, simplify
from compiler.support.errors import ModelError

R = relax.op


def axes_of(dim: Any, x: relax.Expr) -> list[int]:
    """Normalize a `dim` argument: None and ``[]`` mean every axis."""
    rank = len(shape_of(x))
    if dim is None or dim == []:
        return list(range(rank))
    return [d % rank for d in ([dim] if isinstance(dim, int) else dim)] if rank else []


def count(x: relax.Expr, axes: list[int]) -> Dim:
    """Return the number of elements that fall into one element of a reduction over `axes`."""
    total: Dim = 1
    for axis in axes:
        total = total * shape_of(x)[axis]
    return simplify(total)


@converter("sum.default", "sum.dim_IntList")
def _sum(call: Call) -> relax.Expr:
    x = call.cast(call.importer.env[call.node.args[0]], call.dtype)
    axes, keepdim = _reduction_args(call, x)
    return call.emit(R.sum(x, axes, keepdim)) if axes else x


def _reduction_args(call: Call, x: relax.Expr) -> tuple[list[int], bool]:
    dim = call.node.args[1] if len(call.node.args) > 1 else call.node.kwargs.get("dim")
    keepdim = call.node.args[2] if len(call.node.args) > 2 else call.node.kwargs.get("keepdim", False)
    return axes_of(list(dim) if isinstance(dim, (list, tuple)) else dim, x), bool(keepdim)


@converter("mean.default", "mean.dim")
def _mean(call: Call) -> relax.Expr:
    x = call.cast(call.importer.env[call.node.args[0]], call.dtype)
    axes, keepdim = _reduction_args(call, x)
    return call.emit(R.mean(x, axes, keepdim)) if axes else x


@converter("prod.default", "prod.dim_int")
def _prod(call: Call) -> relax.Expr:
    x = call.cast(call.importer.env[call.node.args[0]], call.dtype)
    axes, keepdim = _reduction_args(call, x)
    return call.emit(R.prod(x, axes, keepdim)) if axes else x


@converter("amax.default", "amin.default")
def _extreme(call: Call, self: relax.Expr, dim: list[int], keepdim: bool) -> relax.Expr:
    return extreme(call, self, call.node.target.__name__.startswith("amax"), axes_of(dim, self), keepdim)


@converter("max.default", "min.default")
def _extreme_all(call: Call, self: relax.Expr) -> relax.Expr:
    return extreme(call, self, call.node.target.__name__.startswith("max"), axes_of(None, self), False)


def extreme(call: Call, x: relax.Expr, largest: bool, axes: list[int], keepdim: bool) -> relax.Expr:
    """Maximum or minimum over `axes`, NaN where one occurs among the elements."""
    if not axes:
        return x
    if dtype_of(x) == "bool":
        return call.cast(extreme(call, call.cast(x, "int8"), largest, axes, keepdim), "bool")
    plain = call.emit((R.max if largest else R.min)(x, axes, keepdim))
    if not is_float(dtype_of(x)):
        return plain
    # TVM starts a maximum from the lowest finite number; if all elements are lower, none of them equals it.
    wide = plain if keepdim else call.emit(R.expand_dims(plain, axis=axes))
    found = call.cast(call.emit(R.equal(x, wide)), "int8")
    missed = call.emit(R.equal(call.emit(R.max(found, axes, keepdim)), scalar(0, "int8")))
    limit = scalar(-np.inf if largest else np.inf, dtype_of(x))
    plain = call.emit(R.where(missed, limit, plain))
    # It may also lose a NaN; a sum keeps it, and adds zero elsewhere.
    nans = call.emit(R.sum(R.where(R.isnan(x), x, scalar(0, dtype_of(x))), axes, keepdim))
    return call.emit(R.add(plain, nans))


@converter("max.dim", "min.dim")
def _extreme_dim(call: Call, self: relax.Expr, dim: int, keepdim: bool) -> list[relax.Expr]:
    largest = call.node.target.__name__.startswith("max")
    index = _arg_extreme(call, self, largest, dim, True)
    axis = axes_of(dim, self)
    values = call.emit(R.gather_elements(self, index, axis=axis[0])) if axis else self
    if keepdim or not axis:
        return [values, index]
    return [call.emit(R.squeeze(values, axis=axis)), call.emit(R.squeeze(index, axis=axis))]


@converter("argmax.default", "argmin.default")
def _argmax(call: Call, self: relax.Expr, dim: int | None, keepdim: bool) -> relax.Expr:
    return _arg_extreme(call, self, call.node.target.__name__.startswith("argmax"), dim, keepdim)


def _arg_extreme(call: Call, x: relax.Expr, largest: bool, dim: int | None, keepdim: bool) -> relax.Expr:
    """Index of the first extreme element, a NaN counting as more extreme than any number."""
    rank = len(shape_of(x))
    if rank == 0:
        return call.emit(R.full([], scalar(0, "int64"), "int64"))
    if is_float(dtype_of(x)):
        nans = call.emit(R.isnan(x))
        first_nan = _arg(call, call.cast(nans, "int8"), True, dim, keepdim)
        any_nan = call.emit(R.max(call.cast(nans, "int8"), axes_of(dim, x), keepdim and dim is not None))
        return call.emit(R.where(call.cast(any_nan, "bool"), first_nan, _arg(call, x, largest, dim, keepdim)))
    return _arg(call, call.cast(x, "int8") if dtype_of(x) == "bool" else x, largest, dim, keepdim)


def _arg(call: Call, x: relax.Expr, largest: bool, dim: int | None, keepdim: bool) -> relax.Expr:
    op, shape = (R.argmax if largest else R.argmin), shape_of(x)
    # Where all elements are infinite TVM's search finds none better than its start and gives -1.
    first = scalar(0, "int64")
    if dim is not None:
        return call.emit(R.maximum(op(x, dim % len(shape), keepdim), first))
    flat = reshape(call, x, [count(x, list(range(len(shape))))])
    index = call.emit(R.maximum(op(flat, 0, False), first))
    return reshape(call, index, [1] * len(shape)) if keepdim else index


@converter("any.default", "any.dim", "any.dims", "all.default", "all.dim", "all.dims")
def _any(call: Call) -> relax.Expr:
    x = call.cast(truth(call, call.importer.env[call.node.args[0]]), "int8")
    axes, keepdim = _reduction_args(call, x)
    op = R.max if call.node.target.__name__.startswith("any") else R.min
    return call.cast(call.emit(op(x, axes, keepdim)) if axes else x, call.dtype)


@converter("var.correction", "std.correction", "var_mean.correction", "std_mean.correction")
def _variance(call: Call, self: relax.Expr, dim: Any, correction: Any, keepdim: bool) -> Any:
    """Two passes, as PyTorch's: mean, then the mean of squared differences."""
    axes, dtype, name = axes_of(dim, self), dtype_of(self), call.node.target.__name__
    mean = call.emit(R.mean(self, axes, True)) if axes else self
    off = call.emit(R.subtract(self, mean))
    total = call.emit(R.sum(R.multiply(off, off), axes, keepdim)) if axes else call.emit(R.multiply(off, off))
    freedom = simplify(count(self, axes) - int(1 if correction is None else correction))
    if isinstance(freedom, int):
        result = call.emit(R.divide(total, scalar(max(freedom, 0), dtype)))
    else:
        result = call.emit(R.divide(total, call.tensor(freedom, dtype)))
    if name.startswith("std"):
        result = call.emit(R.sqrt(result))
    if "_mean" not in name:
        return result
    return [result, mean if keepdim or not axes else call.emit(R.squeeze(mean, axis=axes))]


@converter("cumsum.default", "cumprod.default")
def _cumulative(call: Call, self: relax.Expr, dim: int) -> relax.Expr:
    op = R.cumsum if call.node.target.__name__.startswith("cumsum") else R.cumprod
    x = call.cast(self, call.dtype)
    return call.emit(op(x, dim % len(shape_of(x)), call.dtype)) if shape_of(x) else x


@converter("sort.default", "sort.stable")
def _sort(call: Call, self: relax.Expr, dim: int, descending: bool) -> list[relax.Expr]:
    _one_axis(self, "sort")
    index = call.emit(R.argsort(self, dim % len(shape_of(self)), descending, dtype="int64"))
    return [call.emit(R.gather_elements(self, index, axis=dim % len(shape_of(self)))), index]


@converter("argsort.default", "argsort.stable")
def _argsort(call: Call, self: relax.Expr, dim: int, descending: bool) -> relax.Expr:
    _one_axis(self, "argsort")
    return call.emit(R.argsort(self, dim % len(shape_of(self)), descending, dtype="int64"))


@converter("topk.default")
def _topk(call: Call, self: relax.Expr, k: Any, dim: int, largest: bool) -> list[relax.Expr]:
    _one_axis(self, "topk")
    if not isinstance(k, int):
        raise ModelError(
            "expected topk with a fixed k, got one that depends on an input shape; export with a fixed k"
        )
    axis = dim % len(shape_of(self))
    both = call.emit(R.topk(self, k=k, axis=axis, largest=largest, ret_type="both", dtype="int64"))
    return [call.emit(both[0]), call.emit(both[1])]


def _one_axis(x: relax.Expr, name: str) -> None:
    if not shape_of(x):
        raise ModelError(f"expected {name} along an axis, got a scalar tensor; remove the call")


@converter("linalg_vector_norm.default")
def _vector_norm(call: Call, self: relax.Expr, ord: Any, dim: Any, keepdim: bool) -> relax.Expr:
    x, axes = call.cast(self, call.dtype), axes_of(dim, self)
    size, order = call.emit(R.abs(x)), float(ord)
    if order in (np.inf, -np.inf):
        return extreme(call, size, order > 0, axes, keepdim)
    if order == 0:
        return call.emit(R.sum(call.cast(truth(call, x), call.dtype), axes, keepdim))
    if order == 1:
        return call.emit(R.sum(size, axes, keepdim))
    if order == 2:
        return call.emit(R.sqrt(R.sum(R.multiply(x, x), axes, keepdim)))
    total = call.emit(R.sum(R.power(size, scalar(order, call.dtype)), axes, keepdim))
    return call.emit(R.power(total, scalar(1 / order, call.dtype)))
