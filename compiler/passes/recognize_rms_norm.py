"""Root-mean-square normalization written out becomes one op.

    before: y = x * rsqrt(mean(x * x, -1) + eps) * w
    after:  y = nn.rms_norm(x, w, axes=-1, epsilon=eps)     (Zhang and Sennrich, arXiv 1910.07467)

It happens in two steps, so that a norm without a weight is found too: first the bare norm with a weight of
ones, then a product of it with a constant along the normalized axis.
"""

from __future__ import annotations

from typing import Any

from tvm import relax

from compiler.ir.rewriter import is_call, module_pass
from compiler.passes.recognize_match import (
    Recognizer,
    along,
    dtype_of,
    filled,
    first,
    holds_only,
    static_shape_of_axes,
)


class _RecognizeRmsNorm(Recognizer):
    name = "RecognizeRmsNorm"

    def rewrite(self, expr: Any) -> Any:
        if is_call(expr, "relax.astype"):
            return self._cast_back(expr)
        if not is_call(expr, "relax.multiply", "relax.divide"):
            return expr
        return first(self._weighted(expr), self._bare(expr), expr)

    def _bare(self, expr: Any) -> Any | None:
        probe = self.divided_by_root(expr)
        if probe is None:
            return None
        x, mean, eps = probe
        matched = self.mean_of(mean)
        squared = self.squared(matched[0]) if matched is not None else None
        if matched is None or squared is None or not self.same(squared, x):
            return None
        axes, rank = matched[1], len(x.ty.shape.values)
        sizes = static_shape_of_axes(x, axes)
        if axes != list(range(rank - len(axes), rank)) or sizes is None:
            return None
        weight = filled(sizes, 1, dtype_of(x))
        return relax.op.nn.rms_norm(x, weight, axes=[axis - rank for axis in axes], epsilon=eps)

    def _weighted(self, expr: Any) -> Any | None:
        """Fold a constant factor into the weight of a norm that has none yet."""
        if not is_call(expr, "relax.multiply"):
            return None
        for normed, factor in (tuple(expr.args), tuple(expr.args)[::-1]):
            norm = self.call(normed, "nn.rms_norm")
            if norm is None or not holds_only(norm.args[1], 1):
                continue
            rank = len(norm.args[0].ty.shape.values)
            axes = sorted(int(axis) % rank for axis in norm.attrs.axes)
            weight = along(self.definition(factor), axes, norm.args[0])
            if weight is not None and dtype_of(weight) == dtype_of(norm.args[0]):
                return relax.op.nn.rms_norm(
                    norm.args[0], weight, axes=[axis - rank for axis in axes], epsilon=norm.attrs.epsilon
                )
        return None

    def _cast_back(self, expr: Any) -> Any:
        """``astype(rms_norm(astype(x, float32)), half)`` is a norm in half: it computes in float32 inside."""
        norm = self.call(expr.args[0], "nn.rms_norm")
        if norm is None or not holds_only(norm.args[1], 1):
            return expr
        widened = self.call(norm.args[0], "astype")
        half = str(expr.attrs.dtype)
        if widened is None or dtype_of(widened.args[0]) != "float16" or "float16" not in half:
            return expr
        x, axes = widened.args[0], [int(axis) for axis in norm.attrs.axes]
        weight = filled([int(s) for s in norm.args[1].ty.shape.values], 1, "float16")
        return relax.op.nn.rms_norm(x, weight, axes=axes, epsilon=norm.attrs.epsilon)


recognize_rms_norm = module_pass(_RecognizeRmsNorm)
