"""Kernels as plain C functions of an object file: who calls them needs neither TVM's runtime nor tensors.

TVM's own calling convention passes tagged values, and tests each of them. Here a kernel takes pointers to its
buffers, then the extents that are known only when it runs::

    int32_t NAME(const float *input, const float *weight, float *output);

It returns 0. What it asks of a runtime are three pointers of TVM's names, see `compiler/build/runtime`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.s_tir import pipeline as s_tir_pipeline

from compiler.build.lower import no_code
from compiler.build.sizes import Scratch
from compiler.build.statements import function_pass
from compiler.build.tile_functions import lowering_passes, passes_to_c
from compiler.support.errors import BuildError
from compiler.target import Target

_PACKED = "tirx.MakePackedAPI"
_C_FUNCTION = 1
"""TVM's mark of a function whose calling convention is settled (``CallingConv.C_PACKED_FUNC``)."""

_CPU = 1
"""TVM's number of a kind of device: who allocates memory is told it."""

_ALLOCATE = "tirx.TVMBackendAllocWorkspace"


@dataclass(frozen=True)
class KernelFacts:
    """How a kernel is called, and what it takes while it runs.

    Attributes:
        shared: what the thread that calls it allocates for all.
        own: what each thread allocates for its own part, the calling one too.
        implied: sizes that it takes last: extents of arguments, by the numbers of argument and dimension.
    """

    shared: Scratch
    own: Scratch
    implied: tuple[tuple[int, int], ...] = ()


Facts = Mapping[str, KernelFacts]
"""By the name of a kernel."""


@function_pass("PlainFunction")
def _plain_function(function: Any) -> Any:
    """Give a function pointers in place of buffers."""
    name = str(function.attrs["global_symbol"])
    parameters, views = [], []
    for parameter in function.params:
        if isinstance(parameter.ty, tirx.BufferType):
            pointer = tirx.Var(parameter.name, tvm.ir.PointerType(tvm.ir.PrimType(str(parameter.ty.dtype))))
            views.append(tirx.DeclBuffer(parameter, data=pointer))
            parameters.append(pointer)
        else:
            parameters.append(parameter)
    parameters += [extent for extent, _, _ in _implied(function)]
    # In a scope of its own TVM tells LLVM how the buffers are aligned, as in its own convention.
    inner = tirx.AttrStmt(
        tirx.const(0, "int32"), "compute_scope", tvm.ir.StringImm(f"{name}_compute"), function.body
    )
    for key, value in (("device_id", 0), ("device_type", _CPU)):
        inner = tirx.AttrStmt("default", key, tirx.const(value, "int32"), inner)
    body = tirx.stmt_seq(*views, inner, tirx.Return(tirx.const(0, "int32")))
    plain = tirx.PrimFunc(parameters, body, tvm.ir.PrimType("int32"), attrs=function.attrs)
    host = function.attrs["target"].host
    return plain.with_attr("target", host).with_attr("calling_conv", _C_FUNCTION)


def _implied(function: Any) -> list[tuple[Any, int, int]]:
    """Return the sizes of a function's buffers that are no parameters: variable, buffer, dimension."""
    known = [each for each in function.params if not isinstance(each.ty, tirx.BufferType)]
    found: list[tuple[Any, int, int]] = []
    for number, parameter in enumerate(function.params):
        for dimension, extent in enumerate(getattr(parameter.ty, "shape", None) or ()):
            is_new = isinstance(extent, tvm.ir.Var) and not any(extent.same_as(each) for each in known)
            if is_new:
                known.append(extent)
                found.append((extent, number, dimension))
    return found


def write_plain_kernels(kernels: Mapping[str, Any], target: Target, path: Path) -> Facts:
    """Write scheduled PrimFuncs, by names of C functions, as one object file; return facts about them.

    Raises:
        BuildError: TVM cannot make code of one.
    """
    code, facts = _generated(kernels, target, target.tvm_target(), lowering_passes())
    code.write_to_file(str(path))
    return facts


def plain_kernels_in_c(kernels: Mapping[str, Any], target: Target) -> tuple[str, Facts]:
    """Return scheduled PrimFuncs, by names of C functions, as C, and facts about them.

    Loops stay loops: which vectors there are is for the C compiler to know.

    Raises:
        BuildError: TVM cannot make code of one.
    """
    where = tvm.target.Target({"kind": "c", "keys": ["cpu"]})
    code, facts = _generated(kernels, target, where, passes_to_c())
    return _C_HEAD + _C_FOREIGN.sub("", str(code.inspect_source())), facts


_C_FOREIGN = re.compile(
    r"^(// tvm target.*|#define TVM_EXPORTS|#include \"tvm.*|void\* __tvm_ffi__library_ctx.*)\n"
    r"|^#ifdef __cplusplus\nextern \"C\"\n#endif\n",
    re.MULTILINE,
)
"""What TVM's C has for TVM's runtime."""

_C_HEAD = """/* Generated by Kiln: kernels. */
#include <stddef.h>
#include <stdint.h>

#include "kiln_runtime.h"

#define TVM_DLL
#define TVMBackendAllocWorkspace(...) (*__TVMBackendAllocWorkspace)(__VA_ARGS__)
#define TVMBackendFreeWorkspace(...) (*__TVMBackendFreeWorkspace)(__VA_ARGS__)

"""


def _generated(
    kernels: Mapping[str, Any], target: Target, where: Any, passes: Sequence[Any]
) -> tuple[Any, Facts]:
    """Return the code that TVM makes for its target `where`, and facts about the kernels."""
    functions = {name: function.with_attr("global_symbol", name) for name, function in kernels.items()}
    passes = [_plain_function if each.info.name == _PACKED else each for each in passes]
    try:
        with where:
            module = tirx.transform.BindTarget(where.with_host(where))(tvm.IRModule(functions))
            module = tvm.transform.Sequential(passes)(module)
            module = s_tir_pipeline.finalize_host_passes()(module)
            facts = {}
            for function in module.functions.values():
                name = str(function.attrs["global_symbol"])
                implied = tuple((number, dimension) for _, number, dimension in _implied(kernels[name]))
                facts[name] = KernelFacts(*_scratch(function), implied)
            code = tvm.target.codegen.build_module(module, where)
    except BuildError:
        raise
    except Exception as error:
        raise no_code(error, target) from error
    return code, facts


def _scratch(function: Any) -> tuple[Scratch, Scratch]:
    """Return what a lowered function allocates outside of parallel loops, and inside of them."""
    parallel: list[Any] = []

    def loop(stmt: Any) -> None:
        if stmt.kind == tirx.ForKind.PARALLEL:
            parallel.append(stmt)

    tvm_ffi.structural_walk(function.body, [(tirx.For, loop)], order="pre")
    own = [call for each in parallel for call in _allocations(each)]
    shared = [call for call in _allocations(function.body) if not any(call.same_as(each) for each in own)]
    pointer = tvm.ir.PointerType
    variables = tuple(each for each in function.params if not isinstance(each.ty, pointer))
    every, each = (Scratch(variables, tuple(call.args[2] for call in calls)) for calls in (shared, own))
    return every, each


def _allocations(body: Any) -> list[Any]:
    found: list[Any] = []

    def visit(call: Any) -> None:
        if isinstance(call.op, tvm.ir.Op) and call.op.name == _ALLOCATE:
            found.append(call)

    tvm_ffi.structural_walk(body, [(tvm.ir.Call, visit)], order="pre")
    return found
