"""Kernels as plain C functions of an object file: who calls them needs neither TVM's runtime nor tensors.

TVM's own calling convention passes tagged values, and tests each of them. Here a kernel takes pointers to its
buffers, then the extents that are known only when it runs::

    int32_t NAME(const float *input, const float *weight, float *output);

It returns 0. What it asks of a runtime are three pointers of TVM's names, see `compiler/build/runtime`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.s_tir import pipeline as s_tir_pipeline

from compiler.build.lower import no_code
from compiler.build.memory_plan import aligned
from compiler.build.statements import function_pass
from compiler.build.tile_functions import lowering_passes
from compiler.support.errors import BuildError
from compiler.target import Target

_PACKED = "tirx.MakePackedAPI"
_C_FUNCTION = 1
"""TVM's mark of a function whose calling convention is settled (``CallingConv.C_PACKED_FUNC``)."""

_CPU = 1
"""TVM's number of a kind of device: who allocates memory is told it."""

_ALLOCATE = "tirx.TVMBackendAllocWorkspace"


@dataclass(frozen=True)
class KernelMemory:
    """What kernels take while they run.

    Attributes:
        caller: by kernel, bytes that the thread takes which calls it: for all, and for its own part.
        worker: bytes that another thread takes, in the kernel where that is most.
    """

    caller: Mapping[str, int]
    worker: int


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


def write_plain_kernels(kernels: Mapping[str, Any], target: Target, path: Path) -> KernelMemory:
    """Write scheduled PrimFuncs, by names of C functions, as one object file; return what they take.

    Raises:
        BuildError: TVM cannot make code of one.
    """
    where = target.tvm_target()
    functions = {name: function.with_attr("global_symbol", name) for name, function in kernels.items()}
    passes = [_plain_function if each.info.name == _PACKED else each for each in lowering_passes()]
    try:
        with where:
            module = tirx.transform.BindTarget(where.with_host(where))(tvm.IRModule(functions))
            module = tvm.transform.Sequential(passes)(module)
            module = s_tir_pipeline.finalize_host_passes()(module)
            taken = {
                str(function.attrs["global_symbol"]): _scratch(function)
                for function in module.functions.values()
            }
            code = tvm.target.codegen.build_module(module, where)
            code.write_to_file(str(path))
    except BuildError:
        raise
    except Exception as error:
        raise no_code(error, target) from error
    caller = {name: shared + own for name, (shared, own) in taken.items()}
    return KernelMemory(caller, max((own for _, own in taken.values()), default=0))


def _scratch(function: Any) -> tuple[int, int]:
    """Return the bytes that a lowered function allocates outside of parallel loops, and inside of them.

    Raises:
        BuildError: that is known only when it runs.
    """
    parallel: list[Any] = []

    def loop(stmt: Any) -> None:
        if stmt.kind == tirx.ForKind.PARALLEL:
            parallel.append(stmt)

    tvm_ffi.structural_walk(function.body, [(tirx.For, loop)], order="pre")
    own = sum(_allocated(each, function) for each in parallel)
    return _allocated(function.body, function) - own, own


def _allocated(body: Any, function: Any) -> int:
    found: list[int] = []

    def visit(call: Any) -> None:
        if isinstance(call.op, tvm.ir.Op) and call.op.name == _ALLOCATE:
            size = call.args[2]
            if not isinstance(size, tirx.IntImm):
                name = function.attrs["global_symbol"]
                raise BuildError(f"the kernel '{name}' needs memory of a size that is known late: {size}")
            found.append(aligned(int(size.value)))

    tvm_ffi.structural_walk(body, [(tvm.ir.Call, visit)], order="pre")
    return sum(found)
