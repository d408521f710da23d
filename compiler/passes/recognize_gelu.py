"""GELU written out, with erf or with the tanh approximation, becomes one op.

before: y = 0.5 * x * (1 + erf(x / sqrt(2)))
after:  y = nn.gelu(x)
before: y = 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)))
after:  y = nn.gelu_tanh(x)                         (Hendrycks and Gimpel, arXiv 1606.08415)
"""

from __future__ import annotations

import math
from typing import Any

from tvm import relax

from compiler.ir.rewriter import is_call, module_pass
from compiler.passes.recognize_match import Recognizer, close, is_polynomial

_SLOPE = math.sqrt(2 / math.pi)


class _RecognizeGelu(Recognizer):
    name = "RecognizeGelu"

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, "relax.multiply", "relax.divide"):
            return expr
        number, tensors = self.factors(expr)
        if len(tensors) != 2 or not close(number, 0.5):
            return expr
        for x, gate in (tensors, tensors[::-1]):
            function = self._one_plus(gate)
            if function is None:
                continue
            line = self.polynomial(function.args[0], x)
            if function.op.name == "relax.erf" and is_polynomial(line, x1=math.sqrt(0.5)):
                return relax.op.nn.gelu(x)
            if function.op.name == "relax.tanh" and is_polynomial(line, x1=_SLOPE, x3=_SLOPE * 0.044715):
                return relax.op.nn.gelu_tanh(x)
        return expr

    def _one_plus(self, x: Any) -> Any | None:
        """Match ``1 + erf(...)`` or ``1 + tanh(...)``; give the function's call."""
        call = self.call(x, "add")
        for one, rest in () if call is None else (tuple(call.args), tuple(call.args)[::-1]):
            if self.number(one) == 1:
                return self.call(rest, "erf", "tanh")
        return None


recognize_gelu = module_pass(_RecognizeGelu)
