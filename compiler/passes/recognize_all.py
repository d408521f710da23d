"""The recognizers in the order in which they run: after constants are folded, before anything is lowered."""

from __future__ import annotations

from collections.abc import Callable

import tvm

from compiler.passes.recognize_attention import recognize_attention
from compiler.passes.recognize_gelu import recognize_gelu
from compiler.passes.recognize_hard_swish import recognize_hard_swish
from compiler.passes.recognize_layer_norm import recognize_layer_norm
from compiler.passes.recognize_rms_norm import recognize_rms_norm
from compiler.passes.recognize_silu import recognize_silu

RECOGNIZERS: tuple[tuple[str, Callable[[tvm.IRModule], tvm.IRModule]], ...] = (
    ("recognize_silu", recognize_silu),
    ("recognize_gelu", recognize_gelu),
    ("recognize_hard_swish", recognize_hard_swish),
    ("recognize_rms_norm", recognize_rms_norm),
    ("recognize_layer_norm", recognize_layer_norm),
    ("recognize_attention", recognize_attention),
)
"""Name and pass of each recognizer, as the pipeline lists them."""
