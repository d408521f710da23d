"""The name of what a kernel computes: the same in every process and for every name that things may have.

    conv2d 1x8x28x28x16 16x8x3x3x16x16 -> 1x16x14x14x16 float32 #5f0c1be2a94d

The words are for people; the digest is over all that the unscheduled loops say.
"""

from __future__ import annotations

import hashlib
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx

from compiler.passes.kernels import RULE

_DIGITS = 12


def workload_of(function: tirx.PrimFunc) -> str:
    """Return the name of the work of `function`, which is not scheduled yet."""
    *given, output = [parameter.ty for parameter in function.params if hasattr(parameter.ty, "shape")]
    shapes = " ".join(_shape(each) for each in given)
    return f"{_rule(function)} {shapes} -> {_shape(output)} {output.dtype} #{_digest(function)}"


def _rule(function: tirx.PrimFunc) -> str:
    """Return the rule that a block asks for, else the name of the last block."""
    rules, names = [], ["kernel"]

    def see(block: Any) -> None:
        names.append(str(block.name_hint))
        if RULE in block.annotations:
            rules.append(str(block.annotations[RULE]))

    tvm_ffi.structural_walk(function.body, [(s_tir.SBlock, see)], order="pre")
    return rules[0] if rules else names[-1]


def _shape(buffer: Any) -> str:
    sizes = [str(int(each)) if isinstance(each, (int, tirx.IntImm)) else "n" for each in buffer.shape]
    return "x".join(sizes) or "scalar"


def _digest(function: tirx.PrimFunc) -> str:
    """Return a digest of `function` in which variables are numbers in the order of their first use."""
    numbers: dict[Any, int] = {}
    words: list[str] = []

    def visit(node: Any) -> None:
        words.append(_word(node, numbers))

    for parameter in function.params:
        tvm_ffi.structural_walk(parameter.ty, [(tvm_ffi.Object, visit)], order="pre")
        visit(parameter)
    tvm_ffi.structural_walk(function.body, [(tvm_ffi.Object, visit)], order="pre")
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:_DIGITS]


def _word(node: Any, numbers: dict[Any, int]) -> str:
    """Return what a node says itself, apart from what lies below it."""
    if isinstance(node, tvm.ir.Var):
        return f"v{numbers.setdefault(node, len(numbers))}"
    kind = type(node).__name__
    if isinstance(node, (tirx.IntImm, tirx.FloatImm, tvm.ir.StringImm)):
        return f"{kind}:{node.value}"
    if isinstance(node, tvm.ir.PrimType):
        return str(node.dtype)
    if isinstance(node, tvm.ir.Call):
        return f"{kind}:{getattr(node.op, 'name', '')}:{len(node.args)}"
    if isinstance(node, (tirx.For, tirx.IterVar)):
        return f"{kind}:{int(node.kind if isinstance(node, tirx.For) else node.iter_type)}"
    if isinstance(node, tvm_ffi.Array):
        return f"{len(node)}["
    if isinstance(node, tvm_ffi.Map):
        return f"{kind}:{sorted((str(key), str(value)) for key, value in node.items())}"
    return kind
