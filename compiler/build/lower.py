"""From a scheduled module to an executable of TVM's virtual machine: kernels as machine code, ``main`` as
instructions that call them over one planned pool of memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tvm
from tvm import relax

from compiler.build.tile_functions import PIPELINE
from compiler.support.errors import BuildError
from compiler.target import Target


def lower(mod: tvm.IRModule, target: Target) -> Any:
    """Return the ``VMExecutable`` of `mod`, whose PrimFuncs are scheduled for `target`.

    On an accelerator's target its kernels stay source text (CUDA C, OpenCL C, Metal), whether or not TVM's
    runtime could compile them here: what the library holds must not depend on this machine.

    Raises:
        BuildError: TVM cannot generate code for a kernel.
    """
    kernels = PIPELINE if target.kind == "cpu" else "default"
    with _sources_only(), target.tvm_target() as where:
        try:
            lowered = tvm.transform.Sequential(vm_passes())(mod)
            return relax.build(lowered, where, relax_pipeline=None, tir_pipeline=kernels)
        except Exception as error:
            raise no_code(error, target) from error


def vm_passes() -> list[Any]:
    """Return the ordered passes from fused kernel calls to what the virtual machine executes."""
    step = relax.transform
    return [
        step.RewriteDataflowReshape(),
        step.ToNonDataflow(),
        step.RemovePurityChecking(),
        step.CallTIRRewrite(),
        step.StaticPlanBlockMemory(),
        step.LowerAllocTensor(),
        step.KillAfterLastUse(),
        step.LowerRuntimeBuiltin(),
        step.ComputePrimValue(),
        step.VMShapeLower(),
        step.AttachGlobalSymbol(),
    ]


@contextmanager
def _sources_only() -> Iterator[None]:
    """Keep TVM from compiling device sources with what it finds on this machine."""
    name = "TVM_COMPILE_FORCE_FALLBACK"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def no_code(error: Exception, target: Target) -> BuildError:
    """Return what to raise where TVM fails: its reason is in the last lines of its error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = " | ".join(lines[-3:])
    return BuildError(f"expected code for '{target.name}' from every kernel, TVM could not make it: {reason}")
