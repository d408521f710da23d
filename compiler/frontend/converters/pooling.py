"""Pooling over windows; padding beyond PyTorch's own (ceil mode) is made explicit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from compiler.frontend.converters.reductions import _arg, extreme
from compiler.frontend.converters.registry import Call, array, converter, dtype_of, shape_of
from compiler.frontend.converters.shapes import reshape
from compiler.support.errors import ModelError

R = relax.op
_MAX = {1: R.nn.max_pool1d, 2: R.nn.max_pool2d, 3: R.nn.max_pool3d}
_AVERAGE = {1: R.nn.avg_pool1d, 2: R.nn.avg_pool2d, 3: R.nn.avg_pool3d}
_ADAPTIVE = {1: R.nn.adaptive_avg_pool1d, 2: R.nn.adaptive_avg_pool2d, 3: R.nn.adaptive_avg_pool3d}


def full_tuple(value: Any, rank: int) -> list[int]:
    """Repeat a single number for every spatial axis."""
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


def _batched(call: Call, x: relax.Expr, rank: int) -> relax.Expr:
    return x if len(shape_of(x)) == rank + 2 else call.emit(R.expand_dims(x, axis=0))


def _unbatched(call: Call, x: relax.Expr) -> relax.Expr:
    return x if len(shape_of(x)) == len(call.shape) else call.emit(R.squeeze(x, axis=[0]))


def _trailing(
    sizes: Sequence[Any],
    out: Sequence[Any],
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
) -> list[int]:
    """Return the padding after each axis for which floor mode gives exactly `out` windows."""
    if not ceil_mode:
        return padding
    if not all(isinstance(n, int) for n in (*sizes, *out)):
        raise ModelError("expected ceil_mode pooling on fixed sizes, got symbolic ones; use ceil_mode=False")
    reach = [(o - 1) * s + d * (k - 1) + 1 for o, s, d, k in zip(out, stride, dilation, kernel, strict=True)]
    return [max(r - n - p, 0) for r, n, p in zip(reach, sizes, padding, strict=True)]


def _max_pool(
    call: Call,
    x: relax.Expr,
    rank: int,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> relax.Expr:
    kernel = full_tuple(kernel_size, rank)
    strides = full_tuple(stride, rank) if stride else kernel
    pads, dil = full_tuple(padding, rank), full_tuple(dilation, rank)
    sizes, out = shape_of(x)[-rank:], call.shape[-rank:]
    after = _trailing(sizes, out, kernel, strides, pads, dil, ceil_mode)
    pooled = _MAX[rank](
        _batched(call, x, rank), pool_size=kernel, strides=strides, padding=pads + after, dilation=dil
    )
    return _unbatched(call, call.emit(pooled))


@converter("max_pool1d.default", "max_pool2d.default", "max_pool3d.default")
def _max_pool_plain(
    call: Call, self: relax.Expr, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> relax.Expr:
    rank = int(call.node.target.__name__[len("max_pool")])
    return _max_pool(call, self, rank, kernel_size, stride, padding, dilation, ceil_mode)


@converter("max_pool2d_with_indices.default", "max_pool3d_with_indices.default")
def _max_pool_indices(
    call: Call, self: relax.Expr, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> list[Any]:
    rank = int(call.node.target.__name__[len("max_pool")])
    if not _uses(call, 1):
        return [_max_pool(call, self, rank, kernel_size, stride, padding, dilation, ceil_mode), None]
    kernel = full_tuple(kernel_size, rank)
    strides = full_tuple(stride, rank) if stride else kernel
    pads, dil = full_tuple(padding, rank), full_tuple(dilation, rank)
    windows = []
    for axis, size in enumerate(_static(shape_of(self)[-rank:])):
        starts = [
            o * strides[axis] - pads[axis] for o in range(_static(call.shape)[len(call.shape) - rank + axis])
        ]
        windows.append(
            [[p for k in range(kernel[axis]) if 0 <= (p := s + k * dil[axis]) < size] for s in starts]
        )
    return _select_by_windows(call, self, windows)


def _uses(call: Call, output: int) -> bool:
    for user in call.node.users:
        if (
            user.op == "output"
            or user.target.__name__ != "getitem"
            or (user.args[1] == output and user.users)
        ):
            return True
    return False


def _static(sizes: Sequence[Any]) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in sizes]


def _select_by_windows(call: Call, x: relax.Expr, windows: list[list[list[int]]]) -> list[relax.Expr]:
    """Maximum and its flat position for windows given as positions on every spatial axis.

    Every window becomes one row of a table of flat positions; short rows repeat their first position, which
    can win only where that position wins.
    """
    rank, sizes = len(windows), _static(shape_of(x)[-len(windows) :])
    if -1 in sizes:
        raise ModelError(
            "expected max pooling with indices on fixed sizes, got symbolic ones; export with fixed sizes"
        )
    rows = []
    for parts in itertools.product(*windows):
        rows.append([int(np.ravel_multi_index(position, sizes)) for position in itertools.product(*parts)])
    width = max(len(row) for row in rows)
    table = np.array([row + [row[0]] * (width - len(row)) for row in rows], dtype="int64")
    lead = shape_of(x)[:-rank]
    flat = reshape(call, x, [*lead, int(np.prod(sizes))])
    taken = call.emit(R.take(flat, array(table), axis=len(lead)))
    best = call.emit(
        R.where(
            _any_nan(call, taken),
            _arg(call, _nan_mask(call, taken), True, -1, True),
            _arg(call, taken, True, -1, True),
        )
    )
    values = call.emit(R.gather_elements(taken, best, axis=len(lead) + 1))
    offsets = array((np.arange(len(rows)) * width).reshape(-1, 1).astype("int64"))
    positions = call.emit(R.take(array(table.reshape(-1)), R.add(best, offsets), axis=0))
    return [reshape(call, values, call.shape), reshape(call, positions, call.shape)]


def _nan_mask(call: Call, x: relax.Expr) -> relax.Expr:
    return call.cast(call.emit(R.isnan(x)), "int8")


def _any_nan(call: Call, x: relax.Expr) -> relax.Expr:
    return call.cast(call.emit(R.max(_nan_mask(call, x), [-1], True)), "bool")


@converter("adaptive_max_pool2d.default", "adaptive_max_pool3d.default")
def _adaptive_max_pool(call: Call, self: relax.Expr, output_size: list[int]) -> list[Any]:
    rank = len(output_size)
    if not _uses(call, 1) and all(size == 1 for size in output_size):
        return [extreme(call, self, True, list(range(len(call.shape) - rank, len(call.shape))), True), None]
    windows = [
        [list(range(o * size // out, -(-(o + 1) * size // out))) for o in range(out)]
        for size, out in zip(_static(shape_of(self)[-rank:]), output_size, strict=True)
    ]
    return _select_by_windows(call, self, windows)


@converter(
    "_adaptive_avg_pool1d.default",
    "_adaptive_avg_pool2d.default",
    "_adaptive_avg_pool3d.default",
    "adaptive_avg_pool1d.default",
    "adaptive_avg_pool2d.default",
    "adaptive_avg_pool3d.default",
)
def _adaptive_average(call: Call, self: relax.Expr, output_size: list[Any]) -> relax.Expr:
    rank = len(output_size)
    sizes, out = shape_of(self)[-rank:], call.shape[-rank:]
    symbolic = not all(isinstance(n, int) for n in (*sizes, *out))
    if symbolic and all(isinstance(o, int) and o == 1 for o in out):
        return call.emit(R.mean(self, list(range(-rank, 0)), True))
    if symbolic:
        raise ModelError(
            "expected adaptive pooling to 1 or on fixed sizes, got symbolic ones; export with fixed sizes"
        )
    return _unbatched(call, call.emit(_ADAPTIVE[rank](_batched(call, self, rank), out)))


@converter("avg_pool1d.default", "avg_pool2d.default", "avg_pool3d.default")
def _average_pool(
    call: Call,
    self: relax.Expr,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None = None,
) -> relax.Expr:
    """Average windows; an overhang in ceil mode or a divisor of its own goes through a table of divisors."""
    rank = int(call.node.target.__name__[len("avg_pool")])
    kernel = full_tuple(kernel_size, rank)
    strides = full_tuple(stride, rank) if stride else kernel
    pads, sizes, out = full_tuple(padding, rank), shape_of(self)[-rank:], call.shape[-rank:]
    after = _trailing(sizes, out, kernel, strides, pads, [1] * rank, ceil_mode)
    x, overhang = _batched(call, self, rank), any(a > p for a, p in zip(after, pads, strict=True))
    common = {"pool_size": kernel, "strides": strides, "padding": pads + after}
    if divisor_override is None and not overhang:
        pooled = _AVERAGE[rank](x, count_include_pad=count_include_pad, **common)
        return _unbatched(call, call.emit(pooled))
    mean = call.emit(_AVERAGE[rank](x, count_include_pad=True, **common))
    counts = (
        [divisor_override]
        if divisor_override
        else _divisors(sizes, out, kernel, strides, pads, count_include_pad)
    )
    factor = np.prod(kernel) / np.asarray(counts, dtype="float64")
    return _unbatched(call, call.emit(R.multiply(mean, array(factor.astype(dtype_of(x))))))


def _divisors(
    sizes: list[int], out: list[int], kernel: list[int], stride: list[int], padding: list[int], include: bool
) -> np.ndarray:
    """Count what PyTorch divides every window by, as an array of the output's spatial shape."""
    total = np.ones([1] * len(sizes))
    for axis, size in enumerate(sizes):
        low, high = (-padding[axis], size + padding[axis]) if include else (0, size)
        starts = np.arange(out[axis]) * stride[axis] - padding[axis]
        lengths = np.minimum(starts + kernel[axis], high) - np.maximum(starts, low)
        total = total * lengths.reshape([-1 if a == axis else 1 for a in range(len(sizes))])
    return total
