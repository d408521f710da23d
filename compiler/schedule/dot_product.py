"""Dot products of four bytes or two 16-bit floats: the instructions of each CPU behind one form.

    acc[lane] += sum over k of 4:  int32(x[k]) * int32(w[lane, k])
    acc[lane] += sum over k of 2:  float32(x[k]) * float32(w[lane, k])

x are four unsigned or signed bytes, or two short floats, that every lane shares, w four signed bytes or two
floats a lane, acc one vector of 32-bit sums. Schedule rules leave these two loops innermost and mark the
outer one with `DOT_PRODUCT`; `compiler.build.dot_products` puts the instruction in their place.

| CPU | instruction |
|---|---|
| AVX-512 VNNI, AVX-VNNI | ``vpdpbusd``: unsigned by signed, four products in one step, no saturation |
| AVX-512, AVX2, SSE2 | two ``pmaddwd`` over even and odd bytes as 16-bit numbers: ``pmaddubsw`` saturates |
| Armv8.2 dot product | ``sdot`` (signed by signed) |
| Armv8.6 i8mm | ``usdot`` (unsigned by signed) |
| all others | products of 32-bit lanes |
| AVX-512 BF16 | ``vdpbf16ps``: products of bfloat16, summed in float32 |
| Armv8.6 BF16 | ``bfdot``, the same |
| all others | the even and the odd floats widened, and two multiplications and additions of float32 |

(Intel SDM vol. 2, VPDPBUSD, PMADDWD and VDPBF16PS; Arm Architecture Reference Manual, SDOT, USDOT and BFDOT.)
Where TVM lacks the type that an instruction of LLVM's takes, a function in LLVM's own language stands between
them (`HELPERS`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from compiler.passes.kernels.narrow import SHORT_FLOATS
from compiler.target import Target

DOT_PRODUCT = "kiln.dot_product"
"""The annotation of the loop over lanes; its value names the instruction."""

BYTE_PRODUCT = "kiln.byte_product"
"""The annotation of a loop over lanes that have a product of their own: acc[lane] += x[lane] * w[lane]."""

_Step = Callable[[Any, Any, Any, int, str], Any]
"""Gives the new vector of sums for acc, x (one int32), w (p x lanes numbers), lanes and the dtype of x."""


def instruction(target: Target, dtype: str) -> str:
    """Return the name of the dot product on `target` of `dtype` bytes by signed ones, or of short floats."""
    features, lanes = target.features, target.lanes("int32")
    if dtype in SHORT_FLOATS:
        return _of_floats(target, dtype)
    if target.arch in ("x86_64", "x86") and lanes in (4, 8, 16):
        vnni = "avx512vnni" if lanes == 16 else "avxvnni"
        return "vpdpbusd" if dtype == "uint8" and vnni in features else "pmaddwd"
    if target.arch == "aarch64" and lanes == 4:
        if dtype == "int8" and "dotprod" in features:
            return "sdot"
        if dtype == "uint8" and "i8mm" in features:
            return "usdot"
    return "plain"


def _of_floats(target: Target, dtype: str) -> str:
    features, lanes = target.features, target.lanes("float32")
    if dtype == "bfloat16" and target.arch == "x86_64" and lanes == 16 and "avx512bf16" in features:
        return "vdpbf16ps"
    if dtype == "bfloat16" and target.arch == "aarch64" and lanes == 4 and "bf16" in features:
        return "bfdot"
    return "widened"


def step(name: str, acc: Any, x: Any, w: Any, lanes: int, dtype: str) -> Any:
    """Return the new sums of instruction `name`: `acc` 32 bits x lanes, `x` int32, `w` numbers x p lanes.

    `dtype` is that of the p numbers in `x`.
    """
    return _STEPS[name](acc, x, w, lanes, dtype)


def product_step(name: str, acc: Any, x: Any, w: Any, lanes: int) -> Any:
    """Return `acc` + `x` * `w`, lane by lane: int32 x lanes, and bytes of x and signed bytes of w.

    Instructions for several products multiply the others by zero: bytes stand alone in lanes of 32 bits.
    """
    wide, signed = x.astype(f"int32x{lanes}"), w.astype(f"int32x{lanes}")
    if name == "vpdpbusd":
        low = tirx.reinterpret(f"uint8x{lanes}", w).astype(f"int32x{lanes}")
        return _dpbusd(acc, wide, low, lanes)
    if name == "pmaddwd":
        low = tirx.bitwise_and(signed, _vector("int32", 0xFFFF, lanes))
        return acc + _maddwd(wide, low, lanes)
    return acc + wide * signed


def temporaries(target: Target, dtype: str) -> int:
    """Return the registers that a dot product of `dtype` needs beside sums and two a vector of weights."""
    name = instruction(target, dtype)
    return 4 if name in ("pmaddwd", "plain", "widened") else 2


def _vpdpbusd(acc: Any, x: Any, w: Any, lanes: int, dtype: str) -> Any:
    return _dpbusd(acc, tirx.Broadcast(x, lanes), w, lanes)


def _dpbusd(acc: Any, x: Any, w: Any, lanes: int) -> Any:
    quads = [tirx.reinterpret(f"int8x{4 * lanes}", operand) for operand in (x, w)]
    return _llvm(f"int32x{lanes}", f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", acc, *quads)


def _pmaddwd(acc: Any, x: Any, w: Any, lanes: int, dtype: str) -> Any:
    """Sum even and odd bytes apart: each pair of 16-bit products fits 32 bits."""
    shared, weights = (tirx.reinterpret(f"int16x{2 * lanes}", v) for v in (tirx.Broadcast(x, lanes), w))
    total = acc
    for even in (True, False):
        left = _half(shared, 2 * lanes, even=even, signed=dtype == "int8")
        total = total + _maddwd(left, _half(weights, 2 * lanes, even=even, signed=True), lanes)
    return total


def _maddwd(x: Any, w: Any, lanes: int) -> Any:
    names = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}
    pairs = [tirx.reinterpret(f"int16x{2 * lanes}", operand) for operand in (x, w)]
    return _llvm(f"int32x{lanes}", names[lanes], *pairs)


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
    for k in range(4):
        up, down = 24 - 8 * k, 24
        own = tirx.shift_right(tirx.shift_left(x, tirx.const(up, "int32")), tirx.const(down, "int32"))
        if dtype == "uint8":
            own = tirx.bitwise_and(own, tirx.const(255, "int32"))
        each = tirx.shift_right(
            tirx.shift_left(quads, _vector("int32", up, lanes)), _vector("int32", down, lanes)
        )
        total = total + tirx.Broadcast(own, lanes) * each
    return total


def _vdpbf16ps(acc: Any, x: Any, w: Any, lanes: int, dtype: str) -> Any:
    return _helper("kiln_vdpbf16ps", acc, tirx.Broadcast(x, lanes), _words(w, lanes))


def _bfdot(acc: Any, x: Any, w: Any, lanes: int, dtype: str) -> Any:
    return _helper("kiln_bfdot", acc, tirx.Broadcast(x, lanes), _words(w, lanes))


def _helper(name: str, acc: Any, *arguments: Any) -> Any:
    return tirx.call_pure_extern(str(acc.ty.dtype), name, acc, *arguments)


def _words(w: Any, lanes: int) -> Any:
    return tirx.reinterpret(f"int32x{lanes}", w)


def _widened(acc: Any, x: Any, w: Any, lanes: int, dtype: str) -> Any:
    """Widen both floats of each word: the first lies in its lower half."""
    total, words = acc, _words(w, lanes)
    for first in (True, False):
        own, each = (_wide(v, dtype, first=first) for v in (x, words))
        total = total + tirx.Broadcast(own, lanes) * each
    return total


def _wide(words: Any, dtype: str, *, first: bool) -> Any:
    """Return the first or second short float of each of `words`, int32, as float32."""
    name = str(words.ty.dtype)
    number = int(name.partition("x")[2] or 1)

    def const(value: int) -> Any:
        return tirx.const(value, "int32") if number == 1 else _vector("int32", value, number)

    if dtype == "bfloat16":
        bits = tirx.shift_left(words, const(16)) if first else tirx.bitwise_and(words, const(-65536))
        return tirx.reinterpret(name.replace("int32", "float32"), bits)
    half = words if first else tirx.shift_right(words, const(16))
    short = tirx.reinterpret(name.replace("int32", "float16"), half.astype(name.replace("int32", "int16")))
    return short.astype(name.replace("int32", "float32"))


HELPERS = {
    "vdpbf16ps": """
declare <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float>, <32 x bfloat>, <32 x bfloat>)
define <16 x float> @kiln_vdpbf16ps(<16 x float> %acc, <16 x i32> %x, <16 x i32> %w) {
  %a = bitcast <16 x i32> %x to <32 x bfloat>
  %b = bitcast <16 x i32> %w to <32 x bfloat>
  %r = call <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(
    <16 x float> %acc, <32 x bfloat> %a, <32 x bfloat> %b)
  ret <16 x float> %r
}
""",
    "bfdot": """
declare <4 x float> @llvm.aarch64.neon.bfdot.v4f32.v8bf16(<4 x float>, <8 x bfloat>, <8 x bfloat>)
define <4 x float> @kiln_bfdot(<4 x float> %acc, <4 x i32> %x, <4 x i32> %w) {
  %a = bitcast <4 x i32> %x to <8 x bfloat>
  %b = bitcast <4 x i32> %w to <8 x bfloat>
  %r = call <4 x float> @llvm.aarch64.neon.bfdot.v4f32.v8bf16(
    <4 x float> %acc, <8 x bfloat> %a, <8 x bfloat> %b)
  ret <4 x float> %r
}
""",
}
"""Functions that an instruction needs, in LLVM's language; LLVM puts their bodies where they are called."""


def _vector(dtype: str, value: int, lanes: int) -> Any:
    return tirx.Broadcast(tirx.const(value, dtype), lanes)


def _llvm(dtype: str, name: str, *arguments: Any) -> Any:
    return tirx.call_llvm_pure_intrin(dtype, name, *arguments)


_STEPS: dict[str, _Step] = {
    "vpdpbusd": _vpdpbusd,
    "pmaddwd": _pmaddwd,
    "sdot": _sdot,
    "usdot": _usdot,
    "plain": _plain,
    "vdpbf16ps": _vdpbf16ps,
    "bfdot": _bfdot,
    "widened": _widened,
}
