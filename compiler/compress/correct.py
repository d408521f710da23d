"""Bias correction: the mean error that rounding its weights adds to a layer's outputs is known beforehand.

    E[conv(x, w + e)] - E[conv(x, w)]  =  sum of e over what is summed, times E[x] of its channel

(Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section
4.2, with means from data.) The zeros of padding are counted as if they were values: exact but at the border.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.compress.operators import TRANSPOSED
from compiler.ir.rewriter import is_call


def mean_error(call: Any, error: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return the mean of what the `error` of a layer's weights adds, ready to be added to its output.

    `means` are those of the channels of the layer's input.
    """
    if is_call(call, "relax.matmul"):
        return np.asarray(means @ error, np.float32)
    kernel = error.reshape(*error.shape[:2], -1).sum(2, dtype=np.float64)
    groups, rank = int(call.attrs.groups), error.ndim
    if is_call(call, *TRANSPOSED):
        # Each output lies under but some of the kernel's elements.
        steps = int(np.prod([int(step) for step in call.attrs.strides]))
        inputs = kernel.reshape(groups, -1, kernel.shape[1])
        sums = np.einsum("gio,gi->go", inputs, means.reshape(groups, -1)) / steps
    else:
        outputs = kernel.reshape(groups, -1, kernel.shape[1])
        sums = np.einsum("goi,gi->go", outputs, means.reshape(groups, -1))
    return np.asarray(sums.reshape(1, -1, *[1] * (rank - 2)), np.float32)
