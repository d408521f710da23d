"""Layers whose weights and activations are signs become layers of bits.

    matmul(sign(x) * s, sign(w) * t)  ->  xnor_dense(sign_words(x), words) * t * s
    conv2d(sign(x) * s, sign(w) * t)  ->  conv2d(sign(x), sign(w)) * t * s

where ``sign(x)`` is ``where(x >= 0, 1, -1)``. What is left of a convolution is two operands that are 1 and
-1; `compiler.passes.block_layout` gives it a kernel of bits. Sums of signs are exact: scales may come after
(Rastegari et al., "XNOR-Net", ECCV 2016, equation 8).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compiler.ir.constants import constant, number_of
from compiler.ir.rewriter import Rewriter, is_call, module_pass, static_shape
from compiler.passes.coded_weights import CodedWeights, coded_weights
from compiler.passes.kernels import OPAQUE, OUT_ELEMWISE_FUSABLE, REDUCTION
from compiler.passes.kernels.binary import (
    WORD,
    pack_sign_matrix,
    sign_lanes,
    sign_words,
    whole_mean,
    xnor_dense,
)


def sign_source(expr: Any, definition: Callable[[Any], Any]) -> Any | None:
    """Return the x of which `expr` is the sign, ``where(x >= 0, 1, -1)``, or None."""
    chosen = definition(expr)
    if not is_call(chosen, "relax.where") or [number_of(each) for each in chosen.args[1:]] != [1, -1]:
        return None
    test = definition(chosen.args[0])
    if not is_call(test, "relax.greater_equal") or number_of(test.args[1]) != 0:
        return None
    return test.args[0] if str(test.args[0].ty.dtype) == "float32" else None


class _LowerBinary(Rewriter):
    name = "LowerBinary"
    lanes = 0

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, "relax.matmul", "relax.nn.conv2d"):
            return expr
        signs, scale = self._parts(expr.args[0])
        weights = coded_weights(expr.args[1], self.definition)
        if signs is None or weights is None or not (abs(weights.codes) == 1).all():
            return expr
        if is_call(expr, "relax.matmul"):
            made = self._dense(sign_source(signs, self.definition), weights)
        else:
            made = self._convolution(expr, signs, weights)
        return expr if made is None else relax.op.multiply(self.emit(made), self._magnitude(scale))

    def _magnitude(self, scale: Any) -> Any:
        """Return `scale` so that it can be computed beside the layer, if it is a mean of magnitudes.

        First the means of channels, or of rows, which the blocked layout has; it has none of the whole. The
        rest is a kernel that nothing fuses with: the layer's own kernel has to read it.
        """
        mean = self.definition(scale)
        data = mean.args[0] if is_call(mean, "relax.mean") else None
        if data is None or mean.attrs.axis is not None or static_shape(data) is None or data.ty.ndim < 2:
            return scale
        axes = [2, 3] if data.ty.ndim == 4 else [data.ty.ndim - 1]
        parts = self.emit(relax.op.mean(data, axes, keepdims=True))
        return self.emit(self._call(whole_mean, parts, name="whole_mean", pattern=OPAQUE))

    def _parts(self, expr: Any) -> tuple[Any, Any]:
        """Return the signs that `expr` has, and the number that they are multiplied by."""
        product = self.definition(expr)
        if not is_call(product, "relax.multiply"):
            return None, None
        for signs, scale in (product.args, reversed(product.args)):
            if scale.ty.ndim == 0 and sign_source(signs, self.definition) is not None:
                return signs, scale
        return None, None

    def _dense(self, source: Any, weights: CodedWeights) -> Any | None:
        """Return the product of signs, times the scales of the weights; None where these vary along K."""
        signs, shape = weights.codes, static_shape(source)
        scale = np.broadcast_to(weights.scale, signs.shape)
        if signs.ndim != 2 or source.ty.ndim < 2 or shape is None or (scale[1:] != scale[:-1]).any():
            return None
        depth, outputs = signs.shape
        lanes = sign_lanes(depth, self.lanes)
        if missing := -depth % (WORD * lanes):
            source = self.emit(relax.op.nn.pad(source, [0] * (2 * source.ty.ndim - 1) + [missing]))
        words = self.emit(self._call(lambda x: sign_words(x, lanes), source, name="signs", pattern=REDUCTION))
        made = self._call(
            lambda x, w: xnor_dense(x, w, depth, outputs),
            words,
            constant(pack_sign_matrix(signs, lanes, self.lanes)),
            name="xnor_dense",
        )
        return relax.op.multiply(self.emit(made), constant(np.array(scale[0])))

    def _convolution(self, call: Any, signs: Any, weights: CodedWeights) -> Any | None:
        """Return the convolution of signs, times the scales of the weights."""
        outputs = (len(weights.codes), *[1] * (weights.codes.ndim - 1))
        if weights.scale.size not in (1, outputs[0]) or call.attrs.kernel_layout != "OIHW":
            return None
        plain = constant(weights.codes.astype(np.float32))
        made = self.emit(relax.Call(call.op, [signs, plain], call.attrs, call.ty_args))
        return relax.op.multiply(made, constant(np.broadcast_to(weights.scale, outputs).reshape(-1, 1, 1)))

    def _call(self, compute: Any, *arguments: Any, name: str, pattern: int = OUT_ELEMWISE_FUSABLE) -> Any:
        return self.builder.call_te(
            compute, *arguments, primfunc_name_hint=name, primfunc_attrs={"op_pattern": pattern}
        )


def lower_binary(lanes: int) -> Callable[[tvm.IRModule], tvm.IRModule]:
    """Return the pass for vectors of `lanes` 32-bit values."""
    return module_pass(type("_LowerBinary", (_LowerBinary,), {"lanes": lanes}))
