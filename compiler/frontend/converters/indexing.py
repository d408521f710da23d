"""Reading and writing by index tensors."""

from __future__ import annotations

from typing import Any

from tvm import relax

from compiler.frontend.converters.registry import Call, converter, dtype_of, scalar, shape_of
from compiler.frontend.converters.shapes import pieces, reshape, slice_bounds
from compiler.frontend.converters.symbols import Dim, dim_of, simplify
from compiler.support.errors import ModelError

R = relax.op


def wrap(call: Call, index: relax.Expr, size: Dim) -> relax.Expr:
    """Count negative indices from the end."""
    index = call.cast(index, "int64")
    negative = call.emit(R.less(index, scalar(0, "int64")))
    return call.emit(R.where(negative, R.add(index, call.tensor(size, "int64")), index))


def take(x: relax.Expr, index: relax.Expr, axis: int) -> relax.Expr:
    """Take slices by indices from outside, which must never read beyond `x`.

    PyTorch refuses indices out of range; a compiled library cannot, so it reads the nearest slice.
    """
    return R.take(x, index, axis=axis, mode="clip")


@converter("index_select.default")
def _index_select(call: Call, self: relax.Expr, dim: int, index: relax.Expr) -> relax.Expr:
    if not shape_of(self):
        return self
    axis = dim % len(shape_of(self))
    flat = reshape(call, index, [1]) if not shape_of(index) else index
    return call.emit(take(self, call.cast(flat, "int64"), axis))


@converter("embedding.default")
def _embedding(call: Call, weight: relax.Expr, indices: relax.Expr) -> relax.Expr:
    return call.emit(take(weight, indices, 0))


@converter("gather.default")
def _gather(call: Call, self: relax.Expr, dim: int, index: relax.Expr) -> relax.Expr:
    if not shape_of(self):
        return self
    axis, index = dim % len(shape_of(self)), call.cast(index, "int64")
    # Axes other than `dim` may be shorter in the index than in the data.
    data = self
    for other, (have, want) in enumerate(zip(shape_of(self), shape_of(index), strict=True)):
        if other != axis and not (isinstance(simplify(have - want), int) and simplify(have - want) == 0):
            data = call.emit(R.strided_slice(data, [other], [0], [want], assume_inbound=True))
    return call.emit(R.gather_elements(data, index, axis=axis))


@converter("take.default")
def _take(call: Call, self: relax.Expr, index: relax.Expr) -> relax.Expr:
    total: Dim = 1
    for size in shape_of(self):
        total = total * size
    total = simplify(total)
    return call.emit(take(reshape(call, self, [total]), wrap(call, index, total), 0))


def _masks_to_error(indices: list[Any]) -> None:
    if any(i is not None and dtype_of(i) in ("bool", "uint8") for i in indices):
        raise ModelError(
            "expected integer indices, got indexing with a boolean mask, whose output shape depends on the "
            "mask's values; use torch.where with the mask instead"
        )


@converter("index.Tensor", "_unsafe_index.Tensor")
def _index(call: Call, self: relax.Expr, indices: list[Any]) -> relax.Expr:
    """Advanced indexing: the broadcast index replaces the indexed axes, or comes first if those are apart."""
    _masks_to_error(indices)
    rank = len(shape_of(self))
    indexed = [axis for axis, index in enumerate(indices) if index is not None]
    rest = [axis for axis in range(rank) if axis not in indexed]
    arrays = [wrap(call, indices[axis], shape_of(self)[axis]) for axis in indexed]
    if len(indexed) == 1:
        return call.emit(take(self, arrays[0], indexed[0]))
    moved = call.emit(R.permute_dims(self, indexed + rest)) if indexed + rest != list(range(rank)) else self
    sizes = [shape_of(self)[axis] for axis in indexed]
    flat = reshape(call, moved, [simplify(_product(sizes)), *(shape_of(self)[axis] for axis in rest)])
    position = _flat_position(call, arrays, sizes)
    taken = call.emit(take(flat, position, 0))
    if indexed != list(range(indexed[0], indexed[-1] + 1)):
        return taken
    first, depth = indexed[0], len(shape_of(position))
    order = [*range(depth, depth + first), *range(depth), *range(depth + first, depth + len(rest))]
    return call.emit(R.permute_dims(taken, order)) if first else taken


def _product(sizes: list[Dim]) -> Dim:
    total: Dim = 1
    for size in sizes:
        total = total * size
    return total


def _flat_position(call: Call, arrays: list[relax.Expr], sizes: list[Dim]) -> relax.Expr:
    """Row-major position of broadcast indices within axes of `sizes`."""
    position = arrays[0]
    for array, size in zip(arrays[1:], sizes[1:], strict=True):
        position = call.emit(R.add(R.multiply(position, call.tensor(size, "int64")), array))
    return position


@converter("index_put.default", "_unsafe_index_put.default", "index_put_.default")
def _index_put(
    call: Call, self: relax.Expr, indices: list[Any], values: relax.Expr, accumulate: bool
) -> relax.Expr:
    """Write (or add) at indices, on a copy whose indexed axes come first and are flat."""
    if len(indices) == 1 and indices[0] is not None and dtype_of(indices[0]) == "bool":
        return _masked_put(call, self, indices[0], values, accumulate)
    _masks_to_error(indices)
    rank = len(shape_of(self))
    indexed = [axis for axis, index in enumerate(indices) if index is not None]
    rest = [axis for axis in range(rank) if axis not in indexed]
    arrays = [wrap(call, indices[axis], shape_of(self)[axis]) for axis in indexed]
    sizes = [shape_of(self)[axis] for axis in indexed]
    position = _flat_position(call, arrays, sizes)
    if len(indexed) > 1 and indexed != list(range(indexed[0], indexed[-1] + 1)) and rest and indexed[0] != 0:
        raise ModelError("expected index_put on neighbouring axes, got axes apart; permute the tensor first")
    where, tail = shape_of(position), [shape_of(self)[axis] for axis in rest]
    lead = indexed[0] if indexed == list(range(indexed[0], indexed[-1] + 1)) else 0
    values = call.emit(R.broadcast_to(call.cast(values, dtype_of(self)), tail[:lead] + where + tail[lead:]))
    if lead:
        order = [
            *range(lead, lead + len(where)),
            *range(lead),
            *range(lead + len(where), len(where) + len(tail)),
        ]
        values = call.emit(R.permute_dims(values, order))
    order = indexed + rest
    moved = call.emit(R.permute_dims(self, order)) if order != list(range(rank)) else self
    flat = reshape(call, moved, [simplify(_product(sizes)), simplify(_product(tail))])
    updates = reshape(call, values, [simplify(_product(where)), simplify(_product(tail))])
    rows = reshape(call, position, [simplify(_product(where)), 1])
    rows = call.emit(R.broadcast_to(rows, shape_of(updates)))
    written = scatter(call, flat, rows, updates, 0, "add" if accumulate else "update")
    back = reshape(call, written, [shape_of(self)[axis] for axis in order])
    inverse = [order.index(axis) for axis in range(rank)]
    return call.emit(R.permute_dims(back, inverse)) if inverse != list(range(rank)) else back


def _masked_put(
    call: Call, self: relax.Expr, mask: relax.Expr, values: relax.Expr, accumulate: bool
) -> relax.Expr:
    """``x[mask] = value`` for a single value, which is a ``where``."""
    if any(size != 1 for size in shape_of(values)):
        raise ModelError(
            "expected one value in an assignment through a mask, got several; use torch.where instead"
        )
    value = call.cast(reshape(call, values, []), dtype_of(self))
    shape = shape_of(mask) + [1] * (len(shape_of(self)) - len(shape_of(mask)))
    chosen = call.emit(R.add(self, value)) if accumulate else value
    return call.emit(R.where(reshape(call, mask, shape), chosen, self))


def scatter(
    call: Call, data: relax.Expr, index: relax.Expr, src: relax.Expr, axis: int, reduction: str
) -> relax.Expr:
    """Scatter along one axis, bool through int8 (TVM's scatter has no bool)."""
    if dtype_of(data) == "bool":
        done = R.scatter_elements(call.cast(data, "int8"), index, call.cast(src, "int8"), axis, reduction)
        return call.cast(call.emit(done), "bool")
    return call.emit(R.scatter_elements(data, index, src, axis, reduction))


_REDUCTIONS = {
    "add": "add",
    "multiply": "mul",
    "sum": "add",
    "prod": "mul",
    "amax": "max",
    "amin": "min",
    "mean": "mean",
}


def _scatter(call: Call, x: relax.Expr, dim: int, index: relax.Expr, src: Any, reduction: str) -> relax.Expr:
    index = call.cast(index, "int64")
    if not isinstance(src, relax.Expr):
        src = call.emit(R.full(relax.ShapeExpr(shape_of(index)), scalar(src, dtype_of(x)), dtype_of(x)))
    for axis, (have, want) in enumerate(zip(shape_of(src), shape_of(index), strict=True)):
        if not (isinstance(simplify(have - want), int) and simplify(have - want) == 0):
            src = call.emit(R.strided_slice(src, [axis], [0], [want], assume_inbound=True))
    if not shape_of(x):
        return reshape(
            call,
            _scatter(
                call, reshape(call, x, [1]), 0, reshape(call, index, [1]), reshape(call, src, [1]), reduction
            ),
            [],
        )
    return scatter(call, x, index, src, dim % len(shape_of(x)), reduction)


@converter("scatter.src")
def _scatter_src(call: Call, self: relax.Expr, dim: int, index: relax.Expr, src: relax.Expr) -> relax.Expr:
    return _scatter(call, self, dim, index, src, "update")


@converter("scatter.value")
def _scatter_value(call: Call, self: relax.Expr, dim: int, index: relax.Expr, value: Any) -> relax.Expr:
    return _scatter(call, self, dim, index, value, "update")


@converter("scatter.reduce")
def _scatter_reduce(
    call: Call, self: relax.Expr, dim: int, index: relax.Expr, src: relax.Expr, reduce: str
) -> relax.Expr:
    return _scatter(call, self, dim, index, src, _REDUCTIONS[reduce])


@converter("scatter.value_reduce")
def _scatter_value_reduce(
    call: Call, self: relax.Expr, dim: int, index: relax.Expr, value: Any, reduce: str
) -> relax.Expr:
    return _scatter(call, self, dim, index, value, _REDUCTIONS[reduce])


@converter("scatter_add.default")
def _scatter_add(call: Call, self: relax.Expr, dim: int, index: relax.Expr, src: relax.Expr) -> relax.Expr:
    return _scatter(call, self, dim, index, src, "add")


@converter("scatter_reduce.two")
def _scatter_reduce_two(
    call: Call,
    self: relax.Expr,
    dim: int,
    index: relax.Expr,
    src: relax.Expr,
    reduce: str,
    include_self: bool,
) -> relax.Expr:
    if reduce == "mean" or not include_self:
        raise ModelError(
            "expected scatter_reduce with sum, prod, amax or amin and include_self=True; rewrite it so"
        )
    return _scatter(call, self, dim, index, src, _REDUCTIONS[reduce])


@converter("select_scatter.default")
def _select_scatter(call: Call, self: relax.Expr, src: relax.Expr, dim: int, index: Any) -> relax.Expr:
    axis, at = dim % len(shape_of(self)), dim_of(index, call.importer)
    at = simplify(at + shape_of(self)[axis]) if isinstance(at, int) and at < 0 else at
    piece = call.emit(R.expand_dims(call.cast(src, dtype_of(self)), axis=axis))
    return _replace(call, self, piece, axis, at, simplify(at + 1))


@converter("slice_scatter.default")
def _slice_scatter(
    call: Call, self: relax.Expr, src: relax.Expr, dim: int, start: Any, end: Any, step: int
) -> relax.Expr:
    axis = dim % len(shape_of(self))
    begin, stop = slice_bounds(call, self, dim, start, end)
    src = call.cast(src, dtype_of(self))
    if step == 1:
        return _replace(call, self, src, axis, begin, stop)
    rows = call.emit(R.arange(0, shape_of(src)[axis], 1, "int64"))
    rows = call.emit(R.add(R.multiply(rows, scalar(step, "int64")), call.tensor(begin, "int64")))
    shape = [-1 if a == axis else 1 for a in range(len(shape_of(self)))]
    index = call.emit(R.broadcast_to(R.reshape(rows, shape), shape_of(src)))
    return scatter(call, self, index, src, axis, "update")


def _replace(call: Call, x: relax.Expr, piece: relax.Expr, axis: int, begin: Dim, end: Dim) -> relax.Expr:
    """Put `piece` in place of ``begin:end`` on `axis`."""
    sizes = [begin, simplify(end - begin), simplify(shape_of(x)[axis] - end)]
    before, _, after = pieces(call, x, axis, sizes)
    parts = [part for part, size in ((before, sizes[0]), (piece, 1), (after, sizes[2])) if size != 0]
    return call.emit(R.concat(parts, axis=axis)) if len(parts) > 1 else piece


@converter("bucketize.Tensor", "searchsorted.Tensor")
def _bucketize(call: Call, right: bool) -> relax.Expr:
    """Count, for every value, the boundaries below it (`right`: or equal to it)."""
    name = call.node.target.__name__
    first, second = (call.importer.env[node] for node in call.node.args[:2])
    values, edges = (first, second) if name.startswith("bucketize") else (second, first)
    if len(shape_of(edges)) != 1:
        raise ModelError("expected one row of boundaries in searchsorted, got a batch; loop over the rows")
    column = call.emit(R.expand_dims(values, axis=len(shape_of(values))))
    below = call.emit((R.less_equal if right else R.less)(edges, column))
    return call.emit(R.sum(call.cast(below, call.dtype), [len(shape_of(values))], False))
