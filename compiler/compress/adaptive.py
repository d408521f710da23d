"""Adaptive rounding: each weight is rounded so that it makes up for the errors of those before it.

What counts is not how far weights move but how far outputs do: the error e of a layer's weights adds
``e H eT`` to the square of an output, where ``H = E[x xT]`` are the second moments of what the layer reads
(Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020, section 3). With
``H = R D RT``, R upper triangular with ones on its diagonal, that is the sum of ``d_k (e_k + sum of
e_i R_ik)^2``: rounding the weights one after the other, the k-th together with what the errors before it add
through R, leaves each term the least there is. That is GPTQ (Frantar et al., "GPTQ: Accurate Post-Training
Quantization for Generative Pre-trained Transformers", ICLR 2023) in the form of Chee et al., "QuIP: 2-Bit
Quantization of Large Language Models With Guarantees", NeurIPS 2023, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.compress.numerics import LinearGrid

_DAMPING = 0.01
"""Part of the mean square of inputs that is added to each, as GPTQ does: samples are not all there is."""

_BLOCK = 128
"""Weights whose errors are passed on one by one; those of earlier blocks by one matrix product."""


def round_adaptively(
    values: np.ndarray, codes: np.ndarray, grid: LinearGrid, moments: np.ndarray, axis: int
) -> np.ndarray:
    """Return codes of `values` whose outputs are nearer to those in float than those of `codes`.

    Args:
        values: the weights of a layer, with outputs along `axis`, 0 or 1, and inputs along the other and
            those that follow.
        codes: the codes so far; an output keeps them where no others are better.
        grid: of the codes.
        moments: E[x xT] of what an output reads, float32: groups x inputs x inputs.
        axis: the axis of outputs.
    """
    scale = np.broadcast_to(grid.blocks.spread(grid.scale, values.shape), values.shape)
    zero = np.broadcast_to(grid.blocks.spread(grid.zero_point, values.shape), values.shape)
    groups = len(moments)

    def rows(array: np.ndarray) -> np.ndarray:
        return np.moveaxis(array, axis, 0).reshape(groups, values.shape[axis] // groups, -1)

    wanted, steps, zeros = rows(values), rows(scale), rows(zero)
    # The inputs with the greatest squares first: most others are left to make up for their errors.
    order = np.argsort(-np.diagonal(moments, axis1=1, axis2=2), axis=-1, kind="stable")
    feedback = _feedback(np.stack([each[np.ix_(o, o)] for each, o in zip(moments, order, strict=True)]))
    places = np.broadcast_to(order[:, None, :], wanted.shape)
    ordered = [np.take_along_axis(each, places, -1) for each in (wanted, steps, zeros)]
    found = _round(ordered, feedback, (grid.linear.lowest, grid.linear.highest))
    rounded = np.empty(wanted.shape, codes.dtype)
    np.put_along_axis(rounded, places, found.astype(codes.dtype), -1)

    def loss(chosen: np.ndarray) -> np.ndarray:
        error = (chosen.astype(np.float32) - zeros) * steps - wanted
        return np.asarray(((error @ moments) * error).sum(-1, keepdims=True))

    before = rows(codes)
    best = np.where(loss(rounded) < loss(before), rounded, before)
    turned = np.moveaxis(values, axis, 0).shape
    return np.ascontiguousarray(np.moveaxis(best.reshape(turned), 0, axis))


def _feedback(moments: np.ndarray) -> np.ndarray:
    """Return R of ``H = R D RT``: groups x inputs x inputs, upper triangular, ones on the diagonal."""
    inputs = moments.shape[-1]
    size = np.einsum("gii->gi", moments).mean(-1, dtype=np.float64)
    # An input that never is anything else than zero has no say, and must not be divided by.
    damped = moments + (np.where(size > 0, size * _DAMPING, 1.0)[:, None, None] * np.eye(inputs))
    lower = np.linalg.cholesky(damped[:, ::-1, ::-1].astype(np.float64))
    upper = lower[:, ::-1, ::-1]
    return np.asarray(upper / np.einsum("gii->gi", upper)[:, None, :], np.float32)


def _round(given: Sequence[np.ndarray], feedback: np.ndarray, limits: tuple[int, int]) -> np.ndarray:
    """Return codes as float32, rounded from the first input on.

    `given` are values, scales and zero points, each groups x outputs x inputs.
    """
    values, scale, zero = given
    codes, errors = np.empty_like(values), np.empty_like(values)
    for start in range(0, values.shape[-1], _BLOCK):
        end = min(start + _BLOCK, values.shape[-1])
        wanted = values[..., start:end] + errors[..., :start] @ feedback[:, :start, start:end]
        for k in range(start, end):
            own = errors[..., start:k] @ feedback[:, start:k, k, None]
            target = wanted[..., k - start] + own[..., 0]
            steps = np.rint(target / scale[..., k]) + zero[..., k]
            codes[..., k] = np.clip(steps, *limits)
            errors[..., k] = values[..., k] - (codes[..., k] - zero[..., k]) * scale[..., k]
    return codes
