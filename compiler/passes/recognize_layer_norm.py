"""Layer normalization written out becomes one op.

    before: d = x - mean(x); y = d / sqrt(mean(d * d) + eps) * w + b
    after:  y = nn.layer_norm(x, w, b, epsilon=eps)         (Ba et al., arXiv 1607.06450)

First the bare norm is found, with a weight of ones and a bias of zeros; then a product with and a sum with
constants along the normalized axes go into it.
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


class _RecognizeLayerNorm(Recognizer):
    name = "RecognizeLayerNorm"

    def rewrite(self, expr: Any) -> Any:
        if is_call(expr, "relax.add"):
            return first(self._parameter(expr, 2, 0), expr)
        if is_call(expr, "relax.multiply", "relax.divide"):
            return first(self._parameter(expr, 1, 1), self._bare(expr), expr)
        return expr

    def _bare(self, expr: Any) -> Any | None:
        matched = self.divided_by_root(expr)
        if matched is None:
            return None
        scaled, variance, eps = matched
        weight, centred = self._weight_before(scaled)
        difference = self.call(centred, "subtract")
        if difference is None:
            return None
        x = difference.args[0]
        mean = self.mean_of(difference.args[1])
        if mean is None or not mean[0].same_as(x) or self._variance_axes(variance, x, centred) != mean[1]:
            return None
        sizes = static_shape_of_axes(x, mean[1])
        if sizes is None:
            return None
        ones, zeros = filled(sizes, 1, dtype_of(x)), filled(sizes, 0, dtype_of(x))
        bare = relax.op.nn.layer_norm(x, ones, zeros, axes=mean[1], epsilon=eps)
        if weight is None:
            return bare
        product = relax.op.multiply(self.emit(bare), weight)
        return first(self._parameter(product, 1, 1), product)

    def _weight_before(self, y: Any) -> tuple[Any | None, Any]:
        """Part ``weight * centred``, as in ``weight * (x - mean) * rsqrt(...)``, into its factors."""
        call = self.call(y, "multiply")
        for weight, centred in () if call is None else (tuple(call.args), tuple(call.args)[::-1]):
            if self.call(centred, "subtract") is not None:
                return weight, centred
        return None, y

    def _variance_axes(self, variance: Any, x: Any, centred: Any) -> list[int] | None:
        """Match the biased variance of `x`, an op or the mean of ``(x - mean(x)) ** 2``; give its axes."""
        call = self.call(variance, "variance")
        if call is not None:
            kept = call.attrs.keepdims and call.attrs.axis is not None and call.args[0].same_as(x)
            rank = len(x.ty.shape.values)
            return sorted(int(axis) % rank for axis in call.attrs.axis) if kept else None
        mean = self.mean_of(variance)
        squared = self.squared(mean[0]) if mean is not None else None
        if mean is None or squared is None:
            return None
        if squared.same_as(centred):
            return mean[1]
        other = self.call(squared, "subtract")
        inner = self.mean_of(other.args[1]) if other is not None and other.args[0].same_as(x) else None
        return mean[1] if inner is not None and inner[0].same_as(x) and inner[1] == mean[1] else None

    def _parameter(self, expr: Any, position: int, neutral: float) -> Any | None:
        """Put a constant operand in the place of the norm's weight (1) or bias (2), where that is neutral."""
        if is_call(expr, "relax.divide"):
            return None
        for normed, operand in (tuple(expr.args), tuple(expr.args)[::-1]):
            norm = self.call(normed, "nn.layer_norm")
            if (
                norm is None
                or not holds_only(norm.args[position], neutral)
                or not holds_only(norm.args[2], 0)
            ):
                continue
            rank = len(norm.args[0].ty.shape.values)
            axes = [int(axis) % rank for axis in norm.attrs.axes]
            parameter = along(self.definition(operand), axes, norm.args[0])
            if parameter is None or dtype_of(parameter) != dtype_of(norm.args[0]):
                continue
            parameters = list(norm.args[1:])
            parameters[position - 1] = parameter
            return relax.op.nn.layer_norm(norm.args[0], *parameters, axes=axes, epsilon=norm.attrs.epsilon)
        return None


recognize_layer_norm = module_pass(_RecognizeLayerNorm)
