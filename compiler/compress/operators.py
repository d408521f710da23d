"""What quantization knows of Relax' operators: which have weights, which move values, which act on each."""

from __future__ import annotations

from enum import Enum
from typing import Any

import tvm

from compiler.ir.constants import array_of
from compiler.ir.rewriter import is_call

CONVOLUTIONS = ("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")
TRANSPOSED = ("relax.nn.conv1d_transpose", "relax.nn.conv2d_transpose", "relax.nn.conv3d_transpose")
LAYERS = (*CONVOLUTIONS, *TRANSPOSED, "relax.matmul")

_ELEMENTWISE = tuple(
    f"relax.{name}"
    for name in (
        "nn.relu", "nn.relu6", "nn.leakyrelu", "nn.prelu", "nn.silu", "nn.gelu", "nn.gelu_tanh",
        "nn.softplus",
        "clip", "sigmoid", "tanh", "exp", "erf", "sqrt", "rsqrt", "square", "abs", "negative",
        "add", "subtract", "multiply", "divide", "maximum", "minimum", "power",
    )
)  # fmt: skip
_MOVES = tuple(
    f"relax.{name}"
    for name in (
        "reshape", "permute_dims", "expand_dims", "squeeze", "flatten", "strided_slice", "split", "concat",
        "flip", "repeat", "tile", "broadcast_to", "nn.pixel_shuffle",
        "nn.max_pool1d", "nn.max_pool2d", "nn.max_pool3d",
    )
)  # fmt: skip
_MEANS = tuple(
    f"relax.{name}"
    for name in (
        "mean", "nn.avg_pool1d", "nn.avg_pool2d", "nn.avg_pool3d",
        "nn.adaptive_avg_pool1d", "nn.adaptive_avg_pool2d", "nn.adaptive_avg_pool3d",
    )
)  # fmt: skip


class Kind(Enum):
    """What an operator does with bytes."""

    LAYER = "a layer: multiplies bytes by weights"
    MOVE = "moves or chooses bytes: gives values that it took"
    MEAN = "takes means of bytes"
    ELEMENTWISE = "computes each value from those at its place"
    OTHER = "needs floats"


def kind_of(call: Any) -> Kind:
    """Return what `call` does with bytes; a variable is another name for a value, or its shape made known."""
    if isinstance(call, tvm.ir.Var):
        return Kind.MOVE
    if is_call(call, *LAYERS):
        return Kind.OTHER if why_no_layer(call) else Kind.LAYER
    if is_call(call, *_ELEMENTWISE):
        return Kind.ELEMENTWISE
    if is_call(call, *_MEANS):
        return Kind.MEAN
    if is_call(call, "relax.image.resize2d"):
        return Kind.MOVE if str(call.attrs.method) == "nearest_neighbor" else Kind.MEAN
    if is_call(call, "relax.nn.pad"):
        constant = str(call.attrs.pad_mode) == "constant"
        return Kind.MOVE if not constant or float(call.attrs.pad_value) == 0 else Kind.OTHER
    if is_call(call, *_MOVES):
        return Kind.MOVE
    return Kind.OTHER


def why_no_layer(call: Any) -> str:
    """Return why a convolution or matrix product cannot be quantized, or ``""`` if it can."""
    weight = array_of(call.args[1])
    if array_of(call.args[0]) is not None:
        return "its input is constant"
    if weight is None:
        return "it multiplies two activations"
    if weight.dtype.name != "float32":
        return f"its weights are {weight.dtype}"
    if is_call(call, "relax.matmul"):
        return "" if weight.ndim == 2 else f"its weights have {weight.ndim} dimensions"
    plain = ("NC", "IO" if is_call(call, *TRANSPOSED) else "OI")
    given = (str(call.attrs.data_layout)[:2], str(call.attrs.kernel_layout)[:2])
    return "" if given == plain else f"it has the layout {given}"


def input_axis(call: Any) -> int:
    """Return the axis of a layer's weights along which it sums over what it reads."""
    return 1 - output_axis(call)


def output_axis(call: Any) -> int:
    """Return the axis of a layer's weights along which its outputs lie."""
    return 1 if is_call(call, "relax.matmul", *TRANSPOSED) else 0
