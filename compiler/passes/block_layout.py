"""Activations of convolutional networks in blocked layout, end to end.

Every 2-d convolution with constant weights becomes a call of the blocked kernel with packed weights; pooling,
elementwise operators and resizing stay in the blocked layout when their input is in it. Concatenations,
slices and shuffles of channels are put off: as many of them as follow one another become one gather of
channels when something reads the last of them. Whatever else reads a blocked value gets it unpacked once.
With c lanes a vector:

    (N, C, H, W)  <->  (N, ceil(C / c), H, W, c)

The lanes past C hold finite rubbish that no kernel reads back into a real channel: packed weights are zero
there, and operators that could make infinities of it unpack first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compiler.ir.constants import array_of, constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass, static_extents, static_shape
from compiler.passes import small_convolutions as small
from compiler.passes.channel_map import Blocks, ChannelMap, map_of, whole
from compiler.passes.choices import Choose, usual
from compiler.passes.coded_weights import coded_weights
from compiler.passes.kernels import OUT_ELEMWISE_FUSABLE, REDUCTION, pool, winograd
from compiler.passes.kernels import conv2d as kernel
from compiler.passes.kernels.binary import sign_image
from compiler.passes.kernels.channels import gather_channels
from compiler.passes.kernels.layout import pack, pack_array, unpack
from compiler.passes.kernels.narrow import BYTES, SHORT_FLOATS, are_narrow
from compiler.passes.merge_groups import merged
from compiler.passes.winograd_choice import winograd_size

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

_STORED = ("float32", *BYTES, *SHORT_FLOATS)

_MOST_SOURCES = 4
"""Tensors that one gather of channels reads, if that can be had by moving some channels earlier: each of them
lives until then, and each is one more vector to shuffle."""


class _BlockLayout(Rewriter):
    name = "BlockLayout"
    lanes = 0
    choose: Choose = staticmethod(usual)

    def __init__(self) -> None:
        super().__init__()
        self._channels: dict[Any, int] = {}
        self._plain: dict[Any, Any] = {}
        self._blocked: dict[Any, Any] = {}
        self._maps: dict[Any, ChannelMap] = {}
        self._handlers: dict[str, Callable[[Any], Any | None]] = {
            "relax.nn.conv2d": self._conv2d,
            "relax.mean": self._mean,
            "relax.image.resize2d": self._resize,
            "relax.reshape": self._reshape,
            "relax.quantize": self._quantize,
            "relax.dequantize": self._quantize,
            **dict.fromkeys(_POOLS, self._pool),
            **dict.fromkeys(_UNARY | _UNARY_IF_FULL, self._unary),
            **dict.fromkeys(_BINARY | _BINARY_IF_FULL, self._binary),
        }

    def rewrite(self, expr: Any) -> Any:
        if (channels := self._channel_map(expr)) is not None:
            return self._put_off(expr, channels)
        handler = self._handlers.get(expr.op.name) if is_call(expr, *self._handlers) else None
        result = handler(self._gather_operands(expr)) if handler is not None else None
        return self._unblock_operands(expr, self._unblock) if result is None else result

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
        """Return the blocked form of `expr` (N, C, H, W), made once."""
        if self._is_blocked(expr):
            return expr
        if expr not in self._blocked:
            self._blocked[expr] = self._gathered(expr) if expr in self._maps else self._packed(expr)
        return self._blocked[expr]

    def _packed(self, expr: Any) -> Any:
        return self._mark(self._pack(expr, self.lanes), int(expr.ty.shape[1]))

    def _pack(self, expr: Any, width: int) -> Any:
        return self.builder.call_te(pack, expr, width, primfunc_name_hint="pack")

    def _unblock(self, var: Any) -> Any:
        """Return the NCHW form of `var` for an operator that needs it."""
        if self._is_put_off(var) and self._maps[var].joins > 1:
            # The operators that made it would all be done over again, from the first one.
            var = self._block(var)
        return self._unpack(var)

    def _unpack(self, var: Any) -> Any:
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

    def _unblock_operands(self, expr: Any, unblock: Callable[[Any], Any]) -> Any:
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([unblock(field) for field in expr.fields])
        if isinstance(expr, tvm.ir.Call):
            arguments = [
                self._unblock_operands(a, unblock) if isinstance(a, relax.Tuple) else unblock(a)
                for a in expr.args
            ]
            return relax.Call(expr.op, arguments, expr.attrs, expr.ty_args)
        return unblock(expr)

    # Maps of channels

    def _channel_map(self, expr: Any) -> ChannelMap | None:
        """Return the map of channels that `expr` is, if some of them are those of a blocked tensor."""
        found = map_of(expr, self.old_type, self._operand_map)
        if found is not None and found.joins > 1 and len(found.sources) > _MOST_SOURCES:
            found = map_of(expr, self.old_type, self._settled_map)
        return found if found is not None and any(map(self._is_blocked, found.sources)) else None

    def _operand_map(self, expr: Any) -> ChannelMap | None:
        if not isinstance(expr, tvm.ir.Var) or expr in self._maps:
            return self._maps.get(expr)
        channels = self._channels.get(expr) or _plain_channels(expr.ty)
        return whole(expr, channels) if channels and str(expr.ty.dtype) in _STORED else None

    def _settled_map(self, expr: Any) -> ChannelMap | None:
        """Return the map of an operand whose channels, if they were put off, are moved now."""
        if not self._is_put_off(expr):
            return self._operand_map(expr)
        blocked = self._block(expr)
        return replace(whole(blocked, self._channels[blocked]), joins=self._maps[expr].joins)

    def _put_off(self, expr: Any, channels: ChannelMap) -> Any:
        """Bind `expr` as an operator on NCHW, which goes unless it is read as such, and remember its map."""
        var = self.emit(self._unblock_operands(expr, self._unpack))
        self._maps[var] = channels
        return var

    def _is_put_off(self, expr: Any) -> bool:
        return isinstance(expr, tvm.ir.Var) and expr in self._maps and getattr(expr.ty, "ndim", 0) == 4

    def _gather_operands(self, call: Any) -> Any:
        """Return `call` with the blocked forms of operands whose channels are still to be moved."""
        arguments = [self._block(a) if self._is_put_off(a) else a for a in call.args]
        return relax.Call(call.op, arguments, call.attrs, call.ty_args)

    def _gathered(self, var: Any) -> Any:
        """Return the blocked form of `var`: whole blocks as they are, else vectors shuffled from others."""
        channels = self._maps[var]
        sources = [self._block(source) for source in channels.sources]
        blocks = channels.whole_blocks([self._channels[source] for source in sources], self.lanes)
        # TVM would join bfloat16 as float32.
        if blocks is None or (len(blocks) > 1 and str(sources[0].ty.dtype) == "bfloat16"):
            made = self._gather_call(sources, channels.picks)
        else:
            parts = [self._blocks_of(sources[each.source], each) for each in blocks]
            made = parts[0] if len(parts) == 1 else relax.op.concat(parts, 1)
        made = self._mark(made, len(channels.picks))
        if channels.joins <= 1:
            self._plain.setdefault(made, var)
        return made

    def _gather_call(self, sources: list[Any], picks: np.ndarray) -> Any:
        image, _, *size = sources[0].ty.shape
        dtype = str(sources[0].ty.dtype)
        function = gather_channels([source.ty.shape for source in sources], picks, dtype)
        variable = self.builder.add_func(function, "gather_channels")
        shape = (image, -(-len(picks) // self.lanes), *size)
        return relax.call_tir(variable, sources, relax.TensorType(shape, dtype))

    def _blocks_of(self, source: Any, blocks: Blocks) -> Any:
        if (blocks.first, blocks.end) == (0, int(source.ty.shape[1])):
            return source
        return self.emit(relax.op.strided_slice(source, [1], [blocks.first], [blocks.end]))

    # Operators

    def _conv2d(self, call: Any) -> Any | None:
        data, weight = call.args[0], array_of(call.args[1])
        attrs = call.attrs
        if attrs.data_layout != "NCHW":
            return None
        if (made := self._small_conv2d(call)) is not None or weight is None:
            return made
        if are_narrow(str(data.ty.dtype), str(weight.dtype)):
            return self._narrow_conv2d(call, weight)
        if str(data.ty.dtype) != "float32":
            return None
        shape = kernel.Conv2dShape(
            _pair(attrs.strides), _quad(attrs.padding), _pair(attrs.dilation), int(attrs.groups)
        )
        outputs, inputs = weight.shape[:2]
        if shape.groups == outputs and inputs == 1 and shape.groups > 1:
            packed = constant(kernel.pack_depthwise_weights(weight, self.lanes))
            return self._kernel(kernel.depthwise_conv2d, self._block(data), packed, shape, outputs)
        weight, shape = self._groups_of_blocks(weight, shape)
        inputs = weight.shape[1]
        if shape.groups > 1 and (weight.shape[0] // shape.groups) % self.lanes:
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

    def _small_conv2d(self, call: Any) -> Any | None:
        """Return a convolution whose weights are codes, or one of signs with signs; None if it is neither."""
        data, shape = call.args[0], small.shape_of(call)
        inputs = int(call.args[1].ty.shape[1])
        if (weights := coded_weights(call.args[1], self.definition)) is not None:
            plain = inputs < self.lanes and not self._is_blocked(data)
            data = data if plain else self._block(data)
            m = None if plain else self._winograd(shape, weights.codes, coded=True)
            made = small.coded_convolution(weights, shape, self.lanes, 0 if plain else self.lanes, m)
        elif (binary := small.signs_of(call, self.definition)) is not None:
            image, signs, size = self._blocked.get(binary[0], binary[0]), *binary[1:]
            words = self._call(lambda x: sign_image(x, inputs), image, name="signs", pattern=REDUCTION)
            data = self.emit(words)
            made = small.sign_convolution(signs, size, shape, self.lanes)
        else:
            return None
        sums = self._call(made.compute, data, *made.constants, name=made.name)
        return self._mark(made.scaled(self.emit, sums), int(call.args[1].ty.shape[0]))

    def _narrow_conv2d(self, call: Any, weight: np.ndarray) -> Any | None:
        """Return a convolution of bytes or short floats; a padding before it becomes its own."""
        attrs, (data, added, outside) = call.attrs, self._padding(call.args[0])
        own = _quad(attrs.padding)
        if any(own) and any(added):
            return None
        top, left, bottom, right = (a + b for a, b in zip(own, added, strict=True))
        shape = kernel.Conv2dShape(
            _pair(attrs.strides), (top, left, bottom, right), _pair(attrs.dilation), int(attrs.groups)
        )
        outputs = weight.shape[0]
        if shape.groups == outputs and weight.shape[1] == 1 and shape.groups > 1:
            packed, data = kernel.pack_depthwise_weights(weight, self.lanes), self._block(data)
            if weight.dtype != np.int8:
                return self._kernel(
                    kernel.depthwise_conv2d, data, constant(packed.astype("float32")), shape, outputs
                )
            compute = kernel.depthwise_integer
        else:
            weight, shape = self._groups_of_blocks(weight, shape)
            inputs = weight.shape[1]
            if shape.groups > 1 and ((weight.shape[0] // shape.groups) % self.lanes or inputs % self.lanes):
                return None
            # A picture of three channels: one product of four bytes takes a pixel, or two of two floats.
            first = inputs <= kernel.QUAD and not self._is_blocked(data) and data not in self._blocked
            width = kernel.QUAD if first else self.lanes
            packed, compute = kernel.pack_narrow_weights(weight, self.lanes, width), kernel.conv2d_narrow
            data = self.emit(self._pack(data, width)) if first else self._block(data)
        made = self._call(
            lambda x, w: compute(x, w, shape, outside), data, constant(packed), name=compute.__name__
        )
        return self._mark(made, outputs)

    def _groups_of_blocks(
        self, weight: np.ndarray, shape: kernel.Conv2dShape
    ) -> tuple[np.ndarray, kernel.Conv2dShape]:
        """Make one group of the groups that share a block, the last of them filled up with zeros.

        Only where each output block reads the one input block that holds the same groups.
        """
        width, inputs = weight.shape[0] // shape.groups, weight.shape[1]
        if shape.groups == 1 or width != inputs or width >= self.lanes or self.lanes % width:
            return weight, shape
        together = self.lanes // width
        missing = -shape.groups % together
        filled = np.pad(weight, ((0, missing * width), (0, 0), (0, 0), (0, 0)))
        groups = shape.groups + missing
        return merged(filled, groups, together), replace(shape, groups=groups // together)

    def _padding(self, data: Any) -> tuple[Any, tuple[int, ...], int]:
        """Return what `data` is padded from, the widths (top, left, bottom, right) and the byte around it."""
        pad = self.definition(data)
        if not is_call(pad, "relax.nn.pad") or pad.attrs.pad_mode != "constant":
            return data, (0, 0, 0, 0), 0
        widths = [int(width) for width in pad.attrs.pad_width]
        if len(widths) != 8 or any(widths[:4]):
            return data, (0, 0, 0, 0), 0
        top, bottom, left, right = widths[4:]
        return pad.args[0], (top, left, bottom, right), int(pad.attrs.pad_value)

    def _winograd(self, shape: kernel.Conv2dShape, weight: np.ndarray, *, coded: bool = False) -> int | None:
        """Return the m of Winograd's F(m x m, 3 x 3) if the convolution at hand is to be one."""
        output = static_extents(self.old_type)
        if output is None or weight.shape[2:] != (3, 3):
            return None
        choose = usual if coded else type(self).choose
        return winograd_size(shape, weight.shape[1], output, self.lanes, choose, coded=coded)

    def _kernel(self, compute: Any, data: Any, weight: Any, shape: kernel.Conv2dShape, outputs: int) -> Any:
        call = self._call(lambda x, w: compute(x, w, shape), data, weight, name=compute.__name__)
        return self._mark(call, outputs)

    def _call(self, compute: Any, *arguments: Any, name: str, pattern: int = OUT_ELEMWISE_FUSABLE) -> Any:
        return self.builder.call_te(
            compute, *arguments, primfunc_name_hint=name, primfunc_attrs={"op_pattern": pattern}
        )

    def _unary(self, call: Any) -> Any | None:
        data = call.args[0]
        if not self._is_blocked(data) or (call.op.name in _UNARY_IF_FULL and not self._full(data)):
            return None
        return self._mark(relax.Call(call.op, call.args, call.attrs, call.ty_args), self._channels[data])

    def _quantize(self, call: Any) -> Any | None:
        """Quantize or dequantize a blocked tensor of one scale."""
        data, *parameters = call.args
        values = [array_of(parameter) for parameter in parameters]
        if not self._is_blocked(data) or any(value is None or value.size != 1 for value in values):
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
        adaptive = call.op.name == "relax.nn.adaptive_avg_pool2d"
        if adaptive and output is not None and output[2:] == (1, 1):
            return self._global_mean(data)
        if adaptive or shape is None or output is None:
            layout = f"NCHW{self.lanes}c"
            changed = {"layout": layout, "out_layout": layout}
            return self._mark(_with_attrs(call, [data, *call.args[1:]], changed), self._channels[data])
        attrs = call.attrs
        sizes = _pair(attrs.pool_size), _pair(attrs.strides), _quad(attrs.padding), _pair(attrs.dilation)
        window, (rows, columns) = pool.Window(*sizes), output[2:]
        if call.op.name == "relax.nn.max_pool2d":
            source = self._narrow_source(data, SHORT_FLOATS)
            made = self._call(lambda x: pool.max_pool2d(x, window, rows, columns), source, name="max_pool2d")
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
        mean = self._global_mean(data)
        if call.attrs.keepdims:
            return mean
        return relax.op.reshape(self._unblock(mean), self.old_type.shape)

    def _global_mean(self, data: Any) -> Any:
        """Return the mean of each channel."""
        source = self._narrow_source(data, _STORED)
        return self._mark(self._call(pool.global_mean, source, name="mean"), self._channels[data])

    def _narrow_source(self, data: Any, dtypes: Sequence[str]) -> Any:
        """Return what `data`, float32, was cast from, if that is of one of `dtypes`: kernels cast."""
        cast = self.definition(data)
        source = cast.args[0] if is_call(cast, "relax.astype") else data
        return source if str(data.ty.dtype) == "float32" and str(source.ty.dtype) in dtypes else data

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


def _plain_channels(ty: Any) -> int | None:
    """Return the number of channels of the type `ty` if it is a tensor (N, C, H, W), or None."""
    shape = getattr(ty, "shape", None)
    if not isinstance(shape, relax.ShapeExpr) or len(shape) != 4 or not isinstance(shape[1], tvm.tirx.IntImm):
        return None
    return int(shape[1])


def _pair(values: Any) -> tuple[int, int]:
    first, second = (int(value) for value in values)
    return first, second


def _quad(values: Any) -> tuple[int, int, int, int]:
    top, left, bottom, right = (int(value) for value in values)
    return top, left, bottom, right


def block_layout(lanes: int, choose: Choose = usual) -> Callable[[tvm.IRModule], tvm.IRModule]:
    """Return the pass for vectors of `lanes` float32 values; `choose` tells which are Winograd's."""
    return module_pass(
        type("_BlockLayout", (_BlockLayout,), {"lanes": lanes, "choose": staticmethod(choose)})
    )
