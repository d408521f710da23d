"""Convolutions and transposed convolutions of one, two and three dimensions, each as one op."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import relax

from compiler.frontend.converters.registry import Call, converter, dtype_of

nn = relax.op.nn
_FORWARD = {1: nn.conv1d, 2: nn.conv2d, 3: nn.conv3d}
_TRANSPOSED = {1: nn.conv1d_transpose, 2: nn.conv2d_transpose, 3: nn.conv3d_transpose}


@converter("convolution.default")
def _convolution(
    call: Call,
    input: relax.Expr,
    weight: relax.Expr,
    bias: relax.Expr | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> relax.Expr:
    """Convolve ``[N, C, spatial...]`` with ``[O, C/groups, ...]`` (transposed: ``[C, O/groups, ...]``)."""
    rank = len(call.shape) - 2
    common = {
        "strides": _full(stride, rank),
        "padding": _full(padding, rank),
        "dilation": _full(dilation, rank),
        "groups": groups,
        "out_dtype": dtype_of(input),
    }
    if transposed:
        result = _TRANSPOSED[rank](input, weight, output_padding=_full(output_padding, rank), **common)
    else:
        result = _FORWARD[rank](input, weight, **common)
    result = call.emit(result)
    if bias is None:
        return result
    return call.emit(relax.op.add(result, call.emit(relax.op.reshape(bias, [1, -1] + [1] * rank))))


def _full(values: Sequence[int], rank: int) -> list[int]:
    return [int(v) for v in (list(values) * rank if len(values) == 1 else values)]
