"""Import: a model, however it is written, becomes one IRModule with a signature.

`load` is the stage; `check` compares what was imported with the original.
"""

from __future__ import annotations

from compiler.frontend.load import load
from compiler.frontend.model import Model

__all__ = ["Model", "load"]
