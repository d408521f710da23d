"""One kernel as code in this process, with neither linker nor file: for trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm

from compiler.build.tile_functions import PIPELINE
from compiler.target import Target


def jit(function: Any, target: Target) -> Callable[..., Any]:
    """Return the code of a PrimFunc that is scheduled for a CPU like this one; it takes TVM's tensors.

    Raises:
        Exception: TVM cannot make code of it.
    """
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    code: Callable[..., Any] = tvm.tirx.build(module, target=target.tvm_target(), pipeline=PIPELINE)["main"]
    return code
