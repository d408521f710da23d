"""Normalization layers, each as one op."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from compiler.frontend.converters.registry import Call, array, converter, dtype_of, shape_of
from compiler.support.errors import ModelError

R = relax.op


def _or_filled(x: relax.Expr | None, shape: list[int], value: float, dtype: str) -> relax.Expr:
    return array(np.full(shape, value, dtype=dtype)) if x is None else x


@converter("_native_batch_norm_legit_no_training.default")
def _batch_norm(
    call: Call,
    input: relax.Expr,
    weight: relax.Expr | None,
    bias: relax.Expr | None,
    running_mean: relax.Expr,
    running_var: relax.Expr,
    eps: float,
) -> list[relax.Expr]:
    """Normalize with the running statistics; the two saved statistics are empty, as PyTorch's are."""
    channels, dtype = shape_of(input)[1], dtype_of(input)
    normalized = call.emit(
        R.nn.batch_norm(
            input,
            _or_filled(weight, [channels], 1, dtype),
            _or_filled(bias, [channels], 0, dtype),
            running_mean,
            running_var,
            axis=1,
            epsilon=eps,
            training=False,
        )
    )
    empty = call.emit(R.zeros(relax.ShapeExpr([0]), dtype))
    return [call.emit(normalized[0]), empty, empty]


@converter("native_layer_norm.default")
def _layer_norm(
    call: Call,
    input: relax.Expr,
    normalized_shape: list[int],
    weight: relax.Expr | None,
    bias: relax.Expr | None,
    eps: float,
) -> list[Any]:
    shape, dtype = [int(s) for s in normalized_shape], dtype_of(input)
    gamma, beta = _or_filled(weight, shape, 1, dtype), _or_filled(bias, shape, 0, dtype)
    axes = list(range(-len(shape), 0))
    return [call.emit(R.nn.layer_norm(input, gamma, beta, axes=axes, epsilon=eps)), *_unused(call)]


@converter("native_group_norm.default")
def _group_norm(
    call: Call,
    input: relax.Expr,
    weight: relax.Expr | None,
    bias: relax.Expr | None,
    C: int,
    group: int,
    eps: float,
) -> list[Any]:
    dtype, rank = dtype_of(input), len(shape_of(input))
    gamma, beta = _or_filled(weight, [C], 1, dtype), _or_filled(bias, [C], 0, dtype)
    result = R.nn.group_norm(
        input, gamma, beta, num_groups=group, channel_axis=1, axes=list(range(2, rank)), epsilon=eps
    )
    return [call.emit(result), *_unused(call)]


def _unused(call: Call) -> list[None]:
    """Stand for the saved mean and deviation; refuse a model that reads them."""
    for user in call.node.users:
        if user.op != "output" and user.target.__name__ == "getitem" and user.args[1] != 0 and user.users:
            raise ModelError(
                f"expected only the result of {call.node.target} to be used, got its saved statistics"
            )
    return [None, None]


@converter("instance_norm.default")
def _instance_norm(
    call: Call,
    input: relax.Expr,
    weight: relax.Expr | None,
    bias: relax.Expr | None,
    running_mean: relax.Expr | None,
    running_var: relax.Expr | None,
    use_input_stats: bool,
    eps: float,
) -> relax.Expr:
    """Normalize every channel of every sample; with running statistics it is a batch norm."""
    channels, dtype, rank = shape_of(input)[1], dtype_of(input), len(shape_of(input))
    gamma, beta = _or_filled(weight, [channels], 1, dtype), _or_filled(bias, [channels], 0, dtype)
    if use_input_stats:
        axes = list(range(2, rank))
        return call.emit(R.nn.instance_norm(input, gamma, beta, channel_axis=1, axes=axes, epsilon=eps))
    result = R.nn.batch_norm(
        input, gamma, beta, running_mean, running_var, axis=1, epsilon=eps, training=False
    )
    return call.emit(call.emit(result)[0])


@converter("rms_norm.default")
def _rms_norm(
    call: Call, input: relax.Expr, normalized_shape: list[int], weight: relax.Expr | None, eps: float | None
) -> relax.Expr:
    """``x / sqrt(mean(x * x) + eps) * weight``; without `eps`, the type's machine epsilon."""
    shape, dtype = [int(s) for s in normalized_shape], dtype_of(input)
    epsilon = float(np.finfo(dtype).eps) if eps is None else eps
    gamma = _or_filled(weight, shape, 1, dtype)
    return call.emit(R.nn.rms_norm(input, gamma, axes=list(range(-len(shape), 0)), epsilon=epsilon))
