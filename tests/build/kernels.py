"""Kernels of every CPU rule that has register tiles, each with a bias and a ReLU fused to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import te, tirx

from compiler.build.tile_functions import lowering_passes
from compiler.passes.kernels import conv2d, dense, winograd
from compiler.schedule.apply import schedule_kernel
from compiler.schedule.vector_math import register
from compiler.target import Target
from tests.schedule.kernels import lanes_of, placeholder

Kernel = Callable[[Target], tuple[list[Any], Any]]
"""What gives the inputs and the output of a kernel in the layout of a target."""


def convolution(
    inputs: int, outputs: int, size: int, kernel: int, stride: int = 1, padding: int | None = None
) -> Kernel:
    """A convolution on square images; one of fewer inputs than a vector has lanes reads plain NCHW."""
    edge = kernel // 2 if padding is None else padding
    shape = conv2d.Conv2dShape((stride, stride), (edge,) * 4, (1, 1), 1)

    def make(target: Target) -> tuple[list[Any], Any]:
        c = lanes_of(target)
        blocks = -(-outputs // c)
        if inputs < c:
            x, w = (
                placeholder("x", 1, inputs, size, size),
                placeholder("w", blocks, inputs, kernel, kernel, c),
            )
        else:
            x = placeholder("x", 1, -(-inputs // c), size, size, c)
            w = placeholder("w", blocks, -(-inputs // c), kernel, kernel, c, c)
        return _finish([x, w], conv2d.conv2d(x, w, shape))

    return make


def narrow_convolution(dtype: str, inputs: int, outputs: int, size: int, kernel: int) -> Kernel:
    """A convolution of bytes or short floats on square images, with sums in 32 bits."""
    edge, parts = kernel // 2, 2 if dtype == "bfloat16" else 4
    shape = conv2d.Conv2dShape((1, 1), (edge,) * 4, (1, 1), 1)
    weight = "int8" if dtype == "uint8" else dtype

    def make(target: Target) -> tuple[list[Any], Any]:
        c = lanes_of(target)
        extents = (outputs // c, inputs // c, kernel, kernel, c // parts, c, parts)
        x = te.placeholder((1, inputs // c, size, size, c), dtype, "x")
        w = te.placeholder(extents, weight, "w")
        return [x, w], conv2d.conv2d_narrow(x, w, shape, 0)

    return make


def winograd_convolution(inputs: int, outputs: int, size: int, m: int) -> Kernel:
    """Winograd's F(m, 3) on square images."""
    shape = conv2d.Conv2dShape((1, 1), (1,) * 4, (1, 1), 1)

    def make(target: Target) -> tuple[list[Any], Any]:
        c = lanes_of(target)
        x = placeholder("x", 1, inputs // c, size, size, c)
        w = placeholder("w", (m + 2) ** 2, outputs // c, inputs // c, c, c)
        return _finish([x, w], winograd.winograd_conv2d(x, w, shape))

    return make


def dense_layer(rows: int, depth: int, outputs: int) -> Kernel:
    """A dense layer over packed panels."""

    def make(target: Target) -> tuple[list[Any], Any]:
        c = lanes_of(target)
        x, w = placeholder("x", rows, depth), placeholder("w", -(-outputs // c), depth, c)
        return _finish([x, w], dense.dense(x, w, outputs))

    return make


def product(batch: int, rows: int, depth: int, columns: int) -> Kernel:
    """A product of two activations."""

    def make(_: Target) -> tuple[list[Any], Any]:
        x, y = placeholder("x", batch, rows, depth), placeholder("y", batch, depth, columns)
        return _finish([x, y], dense.matmul(x, y))

    return make


def _finish(inputs: list[Any], result: Any) -> tuple[list[Any], Any]:
    """Add a bias of one value a channel (or column), and a ReLU."""
    blocked = len(result.shape) == 5
    bias = placeholder("bias", *([result.shape[1], result.shape[4]] if blocked else [result.shape[-1]]))
    zero = tirx.const(0, "float32")

    def value(*i: Any) -> Any:
        return tirx.max(result[i] + (bias[i[1], i[4]] if blocked else bias[i[-1]]), zero)

    return [*inputs, bias], te.compute(result.shape, value, name="finish")


def scheduled(kernel: Kernel, target: Target, name: str = "kernel") -> tvm.IRModule:
    """Return a module with `kernel`, scheduled for `target`, as the function `name`."""
    register()
    inputs, output = kernel(target)
    function, _ = schedule_kernel(te.create_prim_func([*inputs, output]), target)
    return tvm.IRModule({name: function.with_attr("global_symbol", name)})


def lowered(mod: tvm.IRModule, target: Target, until: str) -> tvm.IRModule:
    """Return `mod` after the passes of the pipeline up to the one called `until`."""
    passes = [tirx.transform.BindTarget(target.tvm_target()), *lowering_passes()]
    names = [each.info.name.removeprefix("tirx.").removeprefix("s_tir.") for each in passes]
    for each in passes[: names.index(until) + 1]:
        mod = each(mod)
    return mod
