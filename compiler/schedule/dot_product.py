"""Dot products of four bytes: the instructions of each CPU behind one description.

    acc[lane] += sum over k of 4:  int32(x[k]) * int32(w[lane, k])

x are four unsigned or signed bytes that every lane shares, w four signed bytes a lane, acc one vector of
32-bit sums. `register` tells TVM of it as a tensor intrinsic: a schedule rule replaces its two innermost loops.

| CPU | instruction |
|---|---|
| AVX-512 VNNI, AVX-VNNI | ``vpdpbusd``: unsigned by signed, all four products in one step, without saturation |
| AVX-512, AVX2, SSE2 | two ``pmaddwd`` over even and odd bytes as 16-bit numbers; ``pmaddubsw`` would saturate |
| Armv8.2 dot product | ``sdot`` (signed by signed) |
| Armv8.6 i8mm | ``usdot`` (unsigned by signed) |
| all others | products of 32-bit lanes |

(Intel SDM vol. 2, VPDPBUSD and PMADDWD; Arm Architecture Reference Manual, SDOT and USDOT.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import s_tir, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from compiler.target import Target

BYTES = 4
"""How many products each lane sums."""

_ONE_STEP = ("vnni4", "vnni8", "vnni16", "sdot", "usdot")

_Step = Callable[[Any, Any, Any, int, str], Any]
"""Gives the new vector of sums for acc, x (one int32), w (int8 x 4 lanes), lanes and the dtype of x."""


def register(target: Target, dtype: str) -> str:
    """Tell TVM of the dot product of `dtype` bytes by signed ones on `target`; return its name."""
    lanes = max(4, target.lanes("int32"))
    kind, step = _choose(target, dtype)
    name = f"kiln.dot4.{dtype}.{lanes}.{kind}"
    if s_tir.TensorIntrin.get(name, allow_missing=True) is None:
        s_tir.TensorIntrin.register(name, _describe(dtype, lanes), _implement(dtype, lanes, step))
    return name


def temporaries(target: Target) -> int:
    """Return the registers that a dot product needs beside the sums and two for each vector of weights."""
    return 2 if _choose(target, "uint8" if wants_unsigned(target) else "int8")[0] in _ONE_STEP else 4


def wants_unsigned(target: Target) -> bool:
    """Tell whether the dot product of `target` is faster with unsigned activations than with signed ones."""
    return target.arch in ("x86_64", "x86") or "i8mm" in target.features


def _choose(target: Target, dtype: str) -> tuple[str, _Step]:
    features = target.features
    if target.arch in ("x86_64", "x86"):
        lanes = target.lanes("int32")
        vnni = "avx512vnni" in features if lanes == 16 else _has(features, "avxvnni", "avx512vnni")
        if dtype == "uint8" and vnni and lanes in (4, 8, 16):
            return f"vnni{lanes}", _vpdpbusd
        if lanes in (4, 8, 16):
            return f"maddwd{lanes}", _pmaddwd
    if target.arch == "aarch64" and target.lanes("int32") == 4:
        if dtype == "int8" and "dotprod" in features:
            return "sdot", _sdot
        if dtype == "uint8" and "i8mm" in features:
            return "usdot", _usdot
    return "plain", _plain


def _has(features: Any, *names: str) -> bool:
    return any(name in features for name in names)


def _vpdpbusd(acc: Any, x: Any, w: Any, lanes: int, dtype: str) -> Any:
    shared = tirx.reinterpret(f"int8x{4 * lanes}", tirx.Broadcast(x, lanes))
    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
    return _llvm(f"int32x{lanes}", name, acc, shared, w)


def _pmaddwd(acc: Any, x: Any, w: Any, lanes: int, dtype: str) -> Any:
    """Sum even and odd bytes apart: each pair of 16-bit products fits 32 bits."""
    names = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}
    halves = f"int16x{2 * lanes}"
    shared = tirx.reinterpret(halves, tirx.Broadcast(x, lanes))
    weights = tirx.reinterpret(halves, w)
    total = acc
    for even in (True, False):
        total = total + _llvm(
            f"int32x{lanes}",
            names[lanes],
            _half(shared, 2 * lanes, even=even, signed=dtype == "int8"),
            _half(weights, 2 * lanes, even=even, signed=True),
        )
    return total


def _half(pairs: Any, lanes: int, *, even: bool, signed: bool) -> Any:
    """Return the even or the odd bytes of `pairs`, 16-bit numbers of two bytes, as 16-bit numbers."""
    eight = _vector("int16", 8, lanes)
    if signed:
        return tirx.shift_right(tirx.shift_left(pairs, eight) if even else pairs, eight)
    return tirx.bitwise_and(pairs if even else tirx.shift_right(pairs, eight), _vector("int16", 255, lanes))


def _sdot(acc: Any, x: Any, w: Any, lanes: int, dtype: str) -> Any:
    shared = tirx.reinterpret("int8x16", tirx.Broadcast(x, 4))
    return _llvm("int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", acc, w, shared)


def _usdot(acc: Any, x: Any, w: Any, lanes: int, dtype: str) -> Any:
    shared = tirx.reinterpret("int8x16", tirx.Broadcast(x, 4))
    return _llvm("int32x4", "llvm.aarch64.neon.usdot.v4i32.v16i8", acc, shared, w)


def _plain(acc: Any, x: Any, w: Any, lanes: int, dtype: str) -> Any:
    """Shift each byte to the end of its 32-bit lane, where the shift back extends its sign."""
    quads, total = tirx.reinterpret(f"int32x{lanes}", w), acc
    for k in range(BYTES):
        up, down = 24 - 8 * k, 24
        own = tirx.shift_right(tirx.shift_left(x, tirx.const(up, "int32")), tirx.const(down, "int32"))
        if dtype == "uint8":
            own = tirx.bitwise_and(own, tirx.const(255, "int32"))
        each = tirx.shift_right(
            tirx.shift_left(quads, _vector("int32", up, lanes)), _vector("int32", down, lanes)
        )
        total = total + tirx.Broadcast(own, lanes) * each
    return total


def _vector(dtype: str, value: int, lanes: int) -> Any:
    return tirx.Broadcast(tirx.const(value, dtype), lanes)


def _llvm(dtype: str, name: str, *arguments: Any) -> Any:
    return tirx.call_llvm_pure_intrin(dtype, name, *arguments)


def _operands(dtype: str, lanes: int) -> tuple[Any, Any, Any]:
    return (
        T.arg("x", T.Buffer((BYTES,), dtype, offset_factor=1)),
        T.arg("w", T.Buffer((lanes, BYTES), "int8", offset_factor=1)),
        T.arg("acc", T.Buffer((lanes,), "int32", offset_factor=1, scope="local")),
    )


def _describe(dtype: str, lanes: int) -> tirx.PrimFunc:
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("describe")
        x, w, acc = _operands(dtype, lanes)
        with T.sblock("root"):
            T.reads(acc[0:lanes], x[0:BYTES], w[0:lanes, 0:BYTES])
            T.writes(acc[0:lanes])
            with T.grid(lanes, BYTES) as (i, k), T.sblock("update"):
                lane, byte = T.axis.spatial(lanes, i), T.axis.reduce(BYTES, k)
                product = tirx.Cast("int32", x[byte]) * tirx.Cast("int32", w[lane, byte])
                T.buffer_store(acc, acc[lane] + product, [lane])
    made: tirx.PrimFunc = builder.get()
    return made


def _implement(dtype: str, lanes: int, step: _Step) -> tirx.PrimFunc:
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("implement")
        x, w, acc = _operands(dtype, lanes)
        with T.sblock("root"):
            T.reads(acc[0:lanes], x[0:BYTES], w[0:lanes, 0:BYTES])
            T.writes(acc[0:lanes])
            every = tirx.Ramp(0, 1, lanes)
            shared = tirx.reinterpret("int32", x.vload([0], f"{dtype}x{BYTES}"))
            weights = w.vload([0, 0], f"int8x{BYTES * lanes}")
            T.buffer_store(
                acc, step(acc.vload([0], f"int32x{lanes}"), shared, weights, lanes, dtype), [every]
            )
    made: tirx.PrimFunc = builder.get()
    return made
