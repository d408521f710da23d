"""Activations of convolutional networks in blocked layout, end to end.

Every 2-d convolution with constant weights becomes a call of the blocked kernel with packed weights; pooling,
elementwise operators, concatenation and resizing stay in the blocked layout when their input is in it.
Whatever else reads a blocked value gets it unpacked once. With c lanes a vector:

    (N, C, H, W)  <->  (N, ceil(C / c), H, W, c)

The lanes past C hold finite rubbish that no kernel reads back into a real channel: packed weights are zero
there, and operators that could make infinities of it unpack first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compiler.ir.constants import array_of, constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass, static_extents, static_shape
from compiler.passes.kernels import OUT_ELEMWISE_FUSABLE, pool, winograd
from compiler.passes.kernels import conv2d as kernel
from compiler.passes.kernels.layout import pack, pack_array, unpack
from compiler.passes.winograd_choice import choose_winograd

_UNARY = {
    f"relax.{name}"
    for name in (
        "nn.relu", "nn.relu6", "nn.silu", "nn.gelu", "nn.gelu_tanh", "nn.leakyrelu", "nn.softplus",
        "sigmoid", "tanh", "clip", "abs", "negative", "erf", "square", "astype",
    )
}  # fmt: skip
# Finite in, finite out holds for these only where no lane is padded with rubbish.
_UNARY_IF_FULL = {"relax.exp", "relax.log", "relax.sqrt", "relax.rsqrt"}
_BINARY = {"relax.add", "relax.subtract", "relax.multiply", "relax.maximum", "relax.minimum"}
_BINARY_IF_FULL = {"relax.divide", "relax.power"}
_POOLS = {"relax.nn.max_pool2d", "relax.nn.avg_pool2d", "relax.nn.adaptive_avg_pool2d"}


class _BlockLayout(Rewriter):
    name = "BlockLayout"
    lanes = 0

    def __init__(self) -> None:
        super().__init__()
        self._channels: dict[Any, int] = {}
        self._plain: dict[Any, Any] = {}
        self._blocked: dict[Any, Any] = {}
        self._handlers: dict[str, Callable[[Any], Any | None]] = {
            "relax.nn.conv2d": self._conv2d,
            "relax.mean": self._mean,
            "relax.concat": self._concat,
            "relax.image.resize2d": self._resize,
            "relax.reshape": self._reshape,
            **dict.fromkeys(_POOLS, self._pool),
            **dict.fromkeys(_UNARY | _UNARY_IF_FULL, self._unary),
            **dict.fromkeys(_BINARY | _BINARY_IF_FULL, self._binary),
        }

    def rewrite(self, expr: Any) -> Any:
        handler = self._handlers.get(expr.op.name) if is_call(expr, *self._handlers) else None
        result = handler(expr) if handler is not None else None
        return self._unblock_operands(expr) if result is None else result

    # Between the layouts

    def _is_blocked(self, expr: Any) -> bool:
        return expr in self._channels

    def _mark(self, expr: Any, channels: int) -> Any:
        var = self.emit(expr)
        self._channels[var] = channels
        return var

    def _full(self, var: Any) -> bool:
        """Tell whether every lane of the blocked `var` is a real channel."""
        return self._channels[var] % self.lanes == 0

    def _block(self, expr: Any) -> Any:
        """Return the blocked form of `expr` (N, C, H, W)."""
        if self._is_blocked(expr):
            return expr
        if expr not in self._blocked:
            packed = self.builder.call_te(pack, expr, self.lanes, primfunc_name_hint="pack")
            self._blocked[expr] = self._mark(packed, int(expr.ty.shape[1]))
        return self._blocked[expr]

    def _unblock(self, var: Any) -> Any:
        """Return the NCHW form of `var`, made once."""
        if not isinstance(var, tvm.ir.Var) or not self._is_blocked(var):
            return var
        if var not in self._plain:
            self._plain[var] = self.emit(self._unpacked(var))
            self._blocked[self._plain[var]] = var
        return self._plain[var]

    def _unpacked(self, var: Any) -> Any:
        n, blocks, height, width, lanes = var.ty.shape
        channels = self._channels[var]
        if static_shape(var) is not None and int(height) == int(width) == 1 and self._full(var):
            return relax.op.reshape(var, (n, int(blocks) * int(lanes), 1, 1))
        return self.builder.call_te(unpack, var, channels, primfunc_name_hint="unpack")

    def _unblock_operands(self, expr: Any) -> Any:
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._unblock(field) for field in expr.fields])
        if isinstance(expr, tvm.ir.Call):
            arguments = [
                self._unblock_operands(a) if isinstance(a, relax.Tuple) else self._unblock(a)
                for a in expr.args
            ]
            return relax.Call(expr.op, arguments, expr.attrs, expr.ty_args)
        return self._unblock(expr)

    # Operators

    def _conv2d(self, call: Any) -> Any | None:
        data, weight = call.args[0], array_of(call.args[1])
        attrs = call.attrs
        if weight is None or attrs.data_layout != "NCHW" or str(data.ty.dtype) != "float32":
            return None
        shape = kernel.Conv2dShape(
            _pair(attrs.strides), _quad(attrs.padding), _pair(attrs.dilation), int(attrs.groups)
        )
        outputs, inputs = weight.shape[:2]
        if shape.groups == outputs and inputs == 1 and shape.groups > 1:
            packed = constant(kernel.pack_depthwise_weights(weight, self.lanes))
            return self._kernel(kernel.depthwise_conv2d, self._block(data), packed, shape, outputs)
        if shape.groups > 1 and (outputs // shape.groups) % self.lanes:
            return None
        if shape.groups == 1 and inputs < self.lanes and not self._is_blocked(data):
            packed = constant(kernel.pack_weights(weight, self.lanes, 0))
            return self._kernel(kernel.conv2d, data, packed, shape, outputs)
        if (m := self._winograd(shape, weight)) is not None:
            packed = constant(winograd.winograd_weights(weight, self.lanes, m))
            return self._kernel(winograd.winograd_conv2d, self._block(data), packed, shape, outputs)
        aligned = shape.groups == 1 or inputs % self.lanes == 0
        packed = constant(kernel.pack_weights(weight, self.lanes, self.lanes if aligned else 0))
        return self._kernel(kernel.conv2d, self._block(data), packed, shape, outputs)

    def _winograd(self, shape: kernel.Conv2dShape, weight: np.ndarray) -> int | None:
        """Return the m of Winograd's F(m x m, 3 x 3) if the convolution at hand pays off as one."""
        output = static_extents(self.old_type)
        plain = (shape.strides, shape.dilation, shape.groups) == ((1, 1), (1, 1), 1)
        if output is None or not plain or weight.shape[2:] != (3, 3):
            return None
        images, outputs, height, width = output
        return choose_winograd(images, weight.shape[1], outputs, height, width, self.lanes)

    def _kernel(self, compute: Any, data: Any, weight: Any, shape: kernel.Conv2dShape, outputs: int) -> Any:
        call = self._call(lambda x, w: compute(x, w, shape), data, weight, name=compute.__name__)
        return self._mark(call, outputs)

    def _call(self, compute: Any, *arguments: Any, name: str) -> Any:
        return self.builder.call_te(
            compute, *arguments,
            primfunc_name_hint=name, primfunc_attrs={"op_pattern": OUT_ELEMWISE_FUSABLE},
        )  # fmt: skip

    def _unary(self, call: Any) -> Any | None:
        data = call.args[0]
        if not self._is_blocked(data) or (call.op.name in _UNARY_IF_FULL and not self._full(data)):
            return None
        return self._mark(relax.Call(call.op, call.args, call.attrs, call.ty_args), self._channels[data])

    def _binary(self, call: Any) -> Any | None:
        blocked = [a for a in call.args if self._is_blocked(a)]
        if not blocked or (call.op.name in _BINARY_IF_FULL and not all(map(self._full, blocked))):
            return None
        channels = max(self._channels[a] for a in blocked)
        operands = [self._operand(a, channels) for a in call.args]
        if any(operand is None for operand in operands):
            return None
        return self._mark(relax.Call(call.op, operands, call.attrs, call.ty_args), channels)

    def _operand(self, expr: Any, channels: int) -> Any | None:
        """Return `expr` so that it broadcasts against a blocked tensor of `channels`, or None."""
        if self._is_blocked(expr):
            return expr if self._channels[expr] == channels else None
        value = array_of(expr)
        if value is not None:
            return self._constant_operand(value, channels)
        if expr.ty.ndim == 0:
            return expr
        if expr.ty.ndim != 4 or not isinstance(expr.ty.shape, relax.ShapeExpr):
            return None
        if int(expr.ty.shape[1]) == 1 != channels:
            return self.emit(relax.op.expand_dims(expr, -1))
        return self._block(expr) if int(expr.ty.shape[1]) == channels else None

    def _constant_operand(self, value: np.ndarray, channels: int) -> Any | None:
        if value.size == 1:
            return constant(value.reshape(()))
        if value.ndim not in (3, 4):
            return None
        image = value if value.ndim == 4 else value[None]
        if image.shape[1] == 1:
            return constant(image[..., None])
        return constant(pack_array(image, self.lanes)) if image.shape[1] == channels else None

    def _pool(self, call: Any) -> Any | None:
        data = call.args[0]
        if not self._is_blocked(data):
            return None
        shape, output = static_shape(data), static_extents(self.old_type)
        if call.op.name == "relax.nn.adaptive_avg_pool2d" or shape is None or output is None:
            layout = f"NCHW{self.lanes}c"
            changed = {"layout": layout, "out_layout": layout}
            return self._mark(_with_attrs(call, [data, *call.args[1:]], changed), self._channels[data])
        attrs = call.attrs
        sizes = _pair(attrs.pool_size), _pair(attrs.strides), _quad(attrs.padding), _pair(attrs.dilation)
        window, (rows, columns) = pool.Window(*sizes), output[2:]
        if call.op.name == "relax.nn.max_pool2d":
            made = self._call(lambda x: pool.max_pool2d(x, window, rows, columns), data, name="max_pool2d")
        else:
            count = bool(attrs.count_include_pad)
            made = self._call(
                lambda x: pool.avg_pool2d(x, window, rows, columns, count_padding=count),
                data,
                name="avg_pool2d",
            )
        return self._mark(made, self._channels[data])

    def _resize(self, call: Any) -> Any | None:
        data = call.args[0]
        if not self._is_blocked(data) or call.attrs.layout != "NCHW":
            return None
        return self._mark(
            _with_attrs(call, call.args, {"layout": f"NCHW{self.lanes}c"}), self._channels[data]
        )

    def _mean(self, call: Any) -> Any | None:
        data = call.args[0]
        if not self._is_blocked(data) or call.attrs.axis is None:
            return None
        if sorted(int(axis) % 4 for axis in call.attrs.axis) != [2, 3]:
            return None
        mean = self._mark(relax.op.mean(data, [2, 3], keepdims=True), self._channels[data])
        if call.attrs.keepdims:
            return mean
        return relax.op.reshape(self._unblock(mean), self.old_type.shape)

    def _concat(self, call: Any) -> Any | None:
        parts = list(call.args[0].fields)
        if call.attrs.axis is None or not any(map(self._is_blocked, parts)) or self.old_type.ndim != 4:
            return None
        if int(call.attrs.axis) % 4 != 1:
            return None
        if any(not self._is_blocked(part) for part in parts) or not all(map(self._full, parts[:-1])):
            return None
        return self._mark(relax.op.concat(parts, 1), sum(self._channels[part] for part in parts))

    def _reshape(self, call: Any) -> Any | None:
        """Flatten what is 1x1 without moving data: (N, CB, 1, 1, c) -> the wanted shape."""
        data = call.args[0]
        if not self._is_blocked(data) or not self._full(data):
            return None
        shape = static_shape(data)
        if shape is None or shape[2:4] != (1, 1):
            return None
        return relax.op.reshape(data, call.args[1])


def _with_attrs(call: Any, arguments: Any, changed: dict[str, Any]) -> Any:
    """Return `call` with other `arguments` and some attributes changed."""
    fields = {name: getattr(call.attrs, name) for name in _attribute_names(call.attrs)}
    attrs = tvm.ir.make_node(call.attrs.__class__.__tvm_ffi_type_info__.type_key, **{**fields, **changed})
    return relax.Call(call.op, list(arguments), attrs, call.ty_args)


def _attribute_names(attrs: Any) -> list[str]:
    return [field.name for field in attrs.__class__.__tvm_ffi_type_info__.fields]


def _pair(values: Any) -> tuple[int, int]:
    first, second = (int(value) for value in values)
    return first, second


def _quad(values: Any) -> tuple[int, int, int, int]:
    top, left, bottom, right = (int(value) for value in values)
    return top, left, bottom, right


def block_layout(lanes: int) -> Callable[[tvm.IRModule], tvm.IRModule]:
    """Return the pass for vectors of `lanes` float32 values."""
    return module_pass(type("_BlockLayout", (_BlockLayout,), {"lanes": lanes}))
