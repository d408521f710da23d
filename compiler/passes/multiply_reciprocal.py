"""Division by a constant becomes multiplication with its reciprocal.

    x / c  ->  x * (1 / c)

A vector division takes as long as some ten multiplications; the result differs by one unit in the last place
at most. Runs once hard-swish and its like are recognized, which are written with a division.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from compiler.ir.constants import array_of, constant
from compiler.ir.rewriter import Rewriter, is_call, module_pass


class _MultiplyReciprocal(Rewriter):
    name = "MultiplyReciprocal"

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, "relax.divide"):
            return expr
        value = array_of(expr.args[1])
        if value is None or value.dtype.kind != "f":
            return expr
        with np.errstate(divide="ignore", over="ignore"):
            reciprocal = (1 / value).astype(value.dtype)
        # Neither zero nor a number so small or so large that its reciprocal is not normal.
        if not np.isfinite(reciprocal).all() or (np.abs(reciprocal) < np.finfo(value.dtype).tiny).any():
            return expr
        return relax.op.multiply(expr.args[0], constant(reciprocal))


multiply_reciprocal = module_pass(_MultiplyReciprocal)
