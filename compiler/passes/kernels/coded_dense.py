"""Matrix products with weights of few bits, which are decoded in registers or once for many rows."""

from __future__ import annotations

from typing import Any

from compiler.passes.kernels.codes import Coding, decode
from compiler.passes.kernels.dense import dense


def coded_dense(
    x: Any, words: Any, outputs: int, coding: Coding, scale: Any | None = None, group: int = 0
) -> Any:
    """Return `x` (..., K), float32, times the coded matrix `words` (ceil(N / c), K / per, c), as (..., N).

    `scale` (ceil(N / c), ceil(K / group), c), if given, has a factor for each `group` of rows of the matrix.
    """
    return dense(x, decode(words, coding, scale, group), outputs)
