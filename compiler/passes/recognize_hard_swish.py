"""Every spelling of hard-swish and hard-sigmoid becomes the one canonical form.

before: y = x * relu6(x + 3) / 6,  x * clip(x / 6 + 0.5, 0, 1), ...
after:  y = x * (clip(x + 3, 0, 6) / 6)             (Howard et al., arXiv 1905.02244)
"""

from __future__ import annotations

from typing import Any

from tvm import relax

from compiler.ir.rewriter import is_call, module_pass
from compiler.passes.recognize_match import Recognizer, close, dtype_of, is_polynomial


class _RecognizeHardSwish(Recognizer):
    name = "RecognizeHardSwish"

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, "relax.multiply", "relax.divide"):
            return expr
        if self._canonical(expr):
            return expr
        number, tensors = self.factors(expr)
        if len(tensors) != 2:
            return expr
        for x, gate in (tensors, tensors[::-1]):
            if self._gate(gate, x, number):
                return relax.op.multiply(x, self._hard_sigmoid(x))
        return expr

    def _gate(self, gate: Any, x: Any, number: float) -> bool:
        """Tell whether ``number * gate`` is the hard sigmoid of `x`."""
        bounded = self._bounded(gate)
        if bounded is None:
            return False
        inner, low, high = bounded
        line = self.polynomial(inner, x)
        wide = (low, high) == (0, 6) and close(number, 1 / 6) and is_polynomial(line, x0=3, x1=1)
        narrow = (low, high) == (0, 1) and close(number, 1) and is_polynomial(line, x0=0.5, x1=1 / 6)
        return wide or narrow

    def _bounded(self, x: Any) -> tuple[Any, float, float] | None:
        """Match a clip from below and above in any spelling; give what is clipped and the bounds."""
        call = self.call(x, "clip", "nn.relu6", "minimum", "where")
        if call is None:
            return None
        name = call.op.name.removeprefix("relax.")
        if name == "clip":
            return call.args[0], float(call.args[1].value), float(call.args[2].value)
        if name == "nn.relu6":
            return call.args[0], 0.0, 6.0
        if name == "minimum":
            high, relu = self.number(call.args[1]), self.call(call.args[0], "nn.relu")
            return None if high is None or relu is None else (relu.args[0], 0.0, high)
        # A clamp that keeps NaN: where(isnan(y), y, clip(y)).
        test = self.call(call.args[0], "isnan")
        inner = self._bounded(call.args[2])
        if test is None or inner is None or not test.args[0].same_as(call.args[1]):
            return None
        return inner if inner[0].same_as(call.args[1]) else None

    def _canonical(self, expr: Any) -> bool:
        """Tell whether `expr` is or belongs to the canonical form already."""
        if is_call(expr, "relax.divide"):
            return False
        for x, gate in (tuple(expr.args), tuple(expr.args)[::-1]):
            division = self.call(gate, "divide")
            if division is None or self.number(division.args[1]) != 6:
                continue
            clip = self.call(division.args[0], "clip")
            if clip is not None:
                total = self.call(clip.args[0], "add")
                return total is not None and total.args[0].same_as(x) and self.number(total.args[1]) == 3
        return False

    def _hard_sigmoid(self, x: Any) -> Any:
        dtype = dtype_of(x)
        shifted = self.emit(relax.op.add(x, relax.const(3.0, dtype)))
        clipped = self.emit(relax.op.clip(shifted, 0, 6))
        return self.emit(relax.op.divide(clipped, relax.const(6.0, dtype)))


recognize_hard_swish = module_pass(_RecognizeHardSwish)
