"""``x * sigmoid(x)`` written out becomes ``R.nn.silu(x)``.

before: s = sigmoid(x); y = x * s
after:  y = nn.silu(x)                (Elfwing et al., arXiv 1702.03118)
"""

from __future__ import annotations

from typing import Any

from tvm import relax

from compiler.ir.rewriter import is_call, module_pass
from compiler.passes.recognize_match import Recognizer


class _RecognizeSilu(Recognizer):
    name = "RecognizeSilu"

    def rewrite(self, expr: Any) -> Any:
        if not is_call(expr, "relax.multiply"):
            return expr
        for x, gate in (tuple(expr.args), tuple(expr.args)[::-1]):
            sigmoid = self.call(gate, "sigmoid")
            if sigmoid is not None and sigmoid.args[0].same_as(x):
                return relax.op.nn.silu(x)
        return expr


recognize_silu = module_pass(_RecognizeSilu)
