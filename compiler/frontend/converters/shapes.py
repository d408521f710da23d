"""Views and moves: every target shape comes from PyTorch's own shape propagation."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, tirx

from compiler.frontend.converters.logic import truth
from compiler.frontend.converters.registry import Call, array, converter, dtype_of, scalar, shape_of
from compiler.frontend.converters.symbols import Dim, dim_of, simplify
from compiler.support.errors import ModelError

R = relax.op
_TRAINS = "expected a model in evaluation mode, got dropout that is on; call model.eval() first"


def reshape(call: Call, x: relax.Expr, shape: list[Dim]) -> relax.Expr:
    """Reshape with PyTorch's meaning of 0 (Relax copies the input's dimension there)."""
    if any(isinstance(d, int) and d == 0 for d in shape):
        return call.emit(R.full(relax.ShapeExpr(shape), scalar(0, dtype_of(x)), dtype_of(x)))
    return call.emit(R.reshape(x, shape))


@converter(
    "view.default",
    "_unsafe_view.default",
    "reshape.default",
    "squeeze.dims",
    "squeeze.dim",
    "squeeze.default",
    "unsqueeze.default",
    "flatten.using_ints",
    "unflatten.int",
    "view_copy.default",
    "_reshape_copy.default",
)
def _reshape(call: Call) -> relax.Expr:
    x = call.importer.env[call.node.args[0]]
    return reshape(call, x, call.shape)


@converter("expand.default", "expand_copy.default", "broadcast_to.default")
def _expand(call: Call, self: relax.Expr) -> relax.Expr:
    return call.emit(R.broadcast_to(self, call.shape))


@converter(
    "alias.default",
    "clone.default",
    "detach.default",
    "detach_.default",
    "contiguous.default",
    "lift_fresh_copy.default",
    "alias_copy.default",
)
def _identity(call: Call) -> relax.Expr:
    return call.importer.env[call.node.args[0]]


@converter("dropout.default")
def _dropout(call: Call, input: relax.Expr, train: bool) -> relax.Expr:
    if train:
        raise ModelError(_TRAINS)
    return input


@converter("native_dropout.default")
def _native_dropout(call: Call, input: relax.Expr, train: bool | None) -> list[relax.Expr]:
    if train:
        raise ModelError(_TRAINS)
    return [input, call.emit(R.full(relax.ShapeExpr(shape_of(input)), scalar(True, "bool"), "bool"))]


@converter("_to_copy.default", "to.dtype", "to.dtype_layout", "type_as.default", "_to_copy.out", "to.device")
def _to_copy(call: Call) -> relax.Expr:
    return convert_type(call, call.importer.env[call.node.args[0]])


@converter("convert_element_type.default", "convert_element_type.no_fuse")
def _convert_element_type(call: Call) -> relax.Expr:
    return convert_type(call, call.importer.env[call.node.args[0]])


def convert_type(call: Call, x: relax.Expr) -> relax.Expr:
    """Cast to the node's type; to bool means "differs from zero"."""
    return truth(call, x) if call.dtype == "bool" else call.cast(x, call.dtype)


@converter("copy.default")
def _copy(call: Call, src: relax.Expr) -> relax.Expr:
    """Overwrite a tensor: the source in the type and shape of the target."""
    return call.emit(R.broadcast_to(convert_type(call, src), call.shape))


@converter("permute.default", "permute_copy.default")
def _permute(call: Call, self: relax.Expr, dims: list[int]) -> relax.Expr:
    return call.emit(R.permute_dims(self, [d % len(dims) for d in dims]) if dims else self)


@converter("transpose.int", "transpose_copy.int")
def _transpose(call: Call, self: relax.Expr, dim0: int, dim1: int) -> relax.Expr:
    order = list(range(len(shape_of(self))))
    if order:
        order[dim0], order[dim1] = order[dim1], order[dim0]
    return call.emit(R.permute_dims(self, order)) if len(order) > 1 else self


@converter("cat.default")
def _cat(call: Call, tensors: list[relax.Expr], dim: int) -> relax.Expr:
    # PyTorch skips legacy empty tensors of rank one.
    full = [t for t in tensors if shape_of(t) != [0] or len(call.shape) == 1]
    parts = [call.cast(t, call.dtype) for t in full]
    return parts[0] if len(parts) == 1 else call.emit(R.concat(parts, axis=dim))


@converter("stack.default")
def _stack(call: Call, tensors: list[relax.Expr], dim: int) -> relax.Expr:
    return call.emit(R.stack([call.cast(t, call.dtype) for t in tensors], axis=dim))


def take_slice(call: Call, x: relax.Expr, axis: int, begin: Dim, end: Dim, step: int = 1) -> relax.Expr:
    """Slice one axis, ``0 <= begin <= end <= size``, ``step > 0``."""
    return call.emit(R.strided_slice(x, [axis], [begin], [end], [step], assume_inbound=True))


@converter("slice.Tensor", "slice_copy.Tensor")
def _slice(call: Call, self: relax.Expr, dim: int, start: Any, end: Any, step: int) -> relax.Expr:
    begin, stop = slice_bounds(call, self, dim, start, end)
    if begin is None or stop is None:
        raise ModelError(
            "expected a slice whose bounds follow from the input shapes, got bounds that depend on data"
        )
    axis = dim % len(shape_of(self))
    if isinstance(begin, int) and begin == 0 and step == 1 and tirx_equal(stop, shape_of(self)[axis]):
        return self
    return take_slice(call, self, axis, begin, stop, step)


def slice_bounds(call: Call, x: relax.Expr, dim: int, start: Any, end: Any) -> tuple[Dim, Dim]:
    """Resolve Python slice bounds (None, negative, beyond the end) against the size of `dim`."""
    size = shape_of(x)[dim]
    return _bound(call, 0 if start is None else start, size), _bound(call, size if end is None else end, size)


def _bound(call: Call, position: Any, size: Dim) -> Dim:
    position = dim_of(position, call.importer)
    if isinstance(position, int) and isinstance(size, int):
        return min(max(position + size if position < 0 else position, 0), size)
    if isinstance(position, int) and position >= 2**62:
        return size
    if isinstance(position, int) and position == 0:
        return 0
    shifted = position + size if isinstance(position, int) and position < 0 else position
    shifted = (
        shifted
        if isinstance(shifted, tirx.Expr) and not isinstance(shifted, int)
        else tirx.IntImm("int64", shifted)
    )
    limit = size if not isinstance(size, int) else tirx.IntImm("int64", size)
    return simplify(tirx.max(tirx.min(shifted, limit), tirx.IntImm("int64", 0)))


def tirx_equal(left: Dim, right: Dim) -> bool:
    """Tell whether two dimensions are provably equal."""
    difference = simplify(left - right)
    return isinstance(difference, int) and difference == 0


@converter("select.int", "select_copy.int")
def _select(call: Call, self: relax.Expr, dim: int, index: Any) -> relax.Expr:
    axis = dim % len(shape_of(self))
    at = dim_of(index, call.importer)
    at = at + shape_of(self)[axis] if isinstance(at, int) and at < 0 else at
    piece = take_slice(call, self, axis, at, at + 1)
    return call.emit(R.squeeze(piece, axis=[axis]))


@converter("narrow.default")
def _narrow(call: Call, self: relax.Expr, dim: int, start: Any, length: Any) -> relax.Expr:
    first = _bound(call, start, shape_of(self)[dim])
    return take_slice(
        call, self, dim % len(shape_of(self)), first, simplify(first + dim_of(length, call.importer))
    )


def pieces(call: Call, x: relax.Expr, dim: int, sizes: list[Dim]) -> list[relax.Expr]:
    """Cut `x` along `dim` into consecutive pieces."""
    axis, start, parts = dim % len(shape_of(x)), 0, []
    if len(sizes) == 1:
        return [x]
    for size in sizes:
        end = simplify(start + size)
        parts.append(take_slice(call, x, axis, start, end))
        start = end
    return parts


@converter(
    "split_with_sizes.default",
    "split.Tensor",
    "split_with_sizes_copy.default",
    "chunk.default",
    "split_copy.Tensor",
    "unsafe_chunk.default",
    "tensor_split.sections",
    "tensor_split.indices",
)
def _split(call: Call, dim: int) -> list[relax.Expr]:
    x = call.importer.env[call.node.args[0]]
    return pieces(call, x, dim, [dim_of(part.shape[dim], call.importer) for part in call.val])


@converter("unbind.int", "unbind_copy.int")
def _unbind(call: Call, self: relax.Expr, dim: int) -> list[relax.Expr]:
    axis = dim % len(shape_of(self))
    parts = pieces(call, self, axis, [1] * len(call.val))
    return [call.emit(R.squeeze(part, axis=[axis])) for part in parts]


@converter("flip.default")
def _flip(call: Call, self: relax.Expr, dims: list[int]) -> relax.Expr:
    for dim in dims:
        self = call.emit(R.flip(self, axis=dim % len(shape_of(self))))
    return self


@converter("roll.default")
def _roll(call: Call, self: relax.Expr, shifts: list[Any], dims: list[int]) -> relax.Expr:
    if not dims:
        flat = reshape(call, self, [simplify(_product(shape_of(self)))])
        return reshape(call, _roll_axis(call, flat, 0, shifts[0]), shape_of(self))
    for shift, dim in zip(shifts, dims, strict=True):
        self = _roll_axis(call, self, dim % len(shape_of(self)), shift)
    return self


def _product(dims: list[Dim]) -> Dim:
    total: Dim = 1
    for dim in dims:
        total = total * dim
    return total


def _roll_axis(call: Call, x: relax.Expr, axis: int, shift: Any) -> relax.Expr:
    """Rotate: the last ``shift mod size`` elements go to the front."""
    size, by = shape_of(x)[axis], dim_of(shift, call.importer)
    if isinstance(size, int) and isinstance(by, int):
        by = by % size if size else 0
        if by == 0:
            return x
    elif isinstance(by, int):
        by = simplify(tirx.floormod(tirx.IntImm("int64", by), size))
    else:
        by = simplify(tirx.floormod(by, tirx.IntImm("int64", size) if isinstance(size, int) else size))
    cut = simplify(size - by)
    return call.emit(
        R.concat([take_slice(call, x, axis, cut, size), take_slice(call, x, axis, 0, cut)], axis=axis)
    )


@converter("repeat.default", "tile.default")
def _repeat(call: Call) -> relax.Expr:
    """Repeat whole axes: insert an axis before each, broadcast it, and flatten."""
    x, times = call.importer.env[call.node.args[0]], call.node.args[1]
    counts = [dim_of(t.meta["val"] if hasattr(t, "meta") else t, call.importer) for t in times]
    old = shape_of(x)
    rank = max(len(counts), len(old))
    counts, old = [1] * (rank - len(counts)) + counts, [1] * (rank - len(old)) + old
    spread = [d for size in old for d in (1, size)]
    target = [d for count, size in zip(counts, old, strict=True) for d in (count, size)]
    if not rank:
        return x
    x = reshape(call, x, spread)
    return reshape(call, call.emit(R.broadcast_to(x, target)), call.shape)


@converter("unfold.default")
def _unfold(call: Call, self: relax.Expr, dimension: int, size: int, step: int) -> relax.Expr:
    """Sliding windows: the windows' starts replace `dimension`, their elements become the last axis."""
    if not shape_of(self):
        return reshape(call, self, call.shape)
    axis = dimension % len(shape_of(self))
    count = call.shape[axis]
    starts = call.emit(R.arange(0, count, 1, "int64"))
    starts = call.emit(R.expand_dims(R.multiply(starts, scalar(step, "int64")), axis=1))
    index = call.emit(R.add(starts, R.expand_dims(R.arange(0, size, 1, "int64"), axis=0)))
    windows = call.emit(R.take(self, index, axis=axis))
    order = [d for d in range(len(shape_of(windows))) if d != axis + 1]
    return call.emit(R.permute_dims(windows, [*order, axis + 1]))


@converter("as_strided.default", "as_strided_copy.default")
def _as_strided(
    call: Call, self: relax.Expr, size: list[Any], stride: list[Any], storage_offset: Any
) -> relax.Expr:
    """Gather by offsets into the elements of a contiguous tensor."""
    source = call.node.args[0].meta["val"]
    skipped = source.storage_offset()
    if not source.is_contiguous():
        raise ModelError(
            "expected as_strided on a contiguous tensor, got a view; write it with slices and reshapes"
        )
    first = 0 if storage_offset is None else storage_offset - skipped
    numbers = [*size, *stride, *shape_of(self), first]
    if not all(isinstance(n, int) for n in numbers):
        raise ModelError(
            "expected as_strided with fixed sizes and strides, got symbolic ones; export with fixed sizes"
        )
    offsets = np.full([1] * len(size), first, dtype="int64")
    for axis, (count, by) in enumerate(zip(size, stride, strict=True)):
        offsets = offsets + (np.arange(count) * by).reshape(
            [-1 if a == axis else 1 for a in range(len(size))]
        )
    total = int(np.prod(shape_of(self), dtype="int64"))
    if offsets.size and not (offsets.min() >= 0 and offsets.max() < total):
        raise ModelError(
            "expected as_strided within its tensor, got one that reaches into memory beyond a view"
        )
    flat = reshape(call, self, [total])
    return call.emit(R.take(flat, array(np.broadcast_to(offsets, size)), axis=0))


@converter("constant_pad_nd.default")
def _constant_pad(call: Call, self: relax.Expr, pad: list[Any], value: Any) -> relax.Expr:
    """Pad (or crop, where negative) the last axes; pairs come last axis first."""
    rank, widths = len(shape_of(self)), [0] * (2 * len(shape_of(self)))
    for pair in range(len(pad) // 2):
        axis = rank - 1 - pair
        low, high = (dim_of(p, call.importer) for p in pad[2 * pair : 2 * pair + 2])
        if not isinstance(low, int) or not isinstance(high, int):
            self = _pad_symbolic(call, self, axis, low, high, value)
            continue
        if low < 0 or high < 0:
            end = simplify(shape_of(self)[axis] + min(high, 0))
            self = take_slice(call, self, axis, max(-low, 0), end)
        widths[2 * axis : 2 * axis + 2] = [max(low, 0), max(high, 0)]
    if not any(widths):
        return self
    if dtype_of(self) == "bool":
        padded = call.emit(R.nn.pad(call.cast(self, "int8"), widths, "constant", float(bool(value))))
        return call.cast(padded, "bool")
    return call.emit(R.nn.pad(self, widths, "constant", value))


def _pad_symbolic(call: Call, x: relax.Expr, axis: int, low: Dim, high: Dim, value: Any) -> relax.Expr:
    parts = [x]
    for amount, front in ((low, True), (high, False)):
        if isinstance(amount, int) and amount == 0:
            continue
        shape = shape_of(x)
        shape[axis] = amount
        block = call.emit(R.full(relax.ShapeExpr(shape), scalar(value, dtype_of(x)), dtype_of(x)))
        parts = [block, *parts] if front else [*parts, block]
    return call.emit(R.concat(parts, axis=axis)) if len(parts) > 1 else x


@converter("diagonal.default", "diagonal_copy.default")
def _diagonal(call: Call, self: relax.Expr, offset: int, dim1: int, dim2: int) -> relax.Expr:
    """Take elements whose indices on two axes differ by `offset`, by flat position."""
    rank = len(shape_of(self))
    first, second = dim1 % rank, dim2 % rank
    order = [d for d in range(rank) if d not in (first, second)] + [first, second]
    moved = call.emit(R.permute_dims(self, order))
    rows, cols = shape_of(self)[first], shape_of(self)[second]
    flat = reshape(call, moved, [*shape_of(moved)[:-2], simplify(rows * cols)])
    start = offset if offset >= 0 else simplify(cols * -offset)
    steps = call.emit(
        R.multiply(R.arange(0, call.shape[-1], 1, "int64"), call.tensor(simplify(cols + 1), "int64"))
    )
    return call.emit(R.take(flat, R.add(steps, call.tensor(start, "int64")), axis=rank - 2))
