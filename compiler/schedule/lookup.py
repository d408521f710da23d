"""Tables of 256 bytes: looked up in registers where the CPU has instructions for that.

parallel over vectors
  lanes (marked):  output[lane] = table[codes[lane]]

`compiler.build.lookups` puts the instructions in the place of the marked loop.

| CPU | a vector of lookups |
|---|---|
| AVX-512 VBMI | two ``vpermi2b``, each of half of the table, and a choice |
| AVX-512 BW | sixteen ``vpshufb``, each of sixteen bytes of the table |
| Armv8 | ``tbl`` and three ``tbx``, each of a quarter of the table |
| all others | a load each |

(Intel SDM vol. 2, VPERMI2B and PSHUFB; Arm Architecture Reference Manual, TBL and TBX.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.s_tir import Schedule

from compiler.passes.kernels.lookup import instruction
from compiler.schedule.blocks import PARTITION, all_blocks, extent, find_anchor
from compiler.target import Target

NAME = "lookup"

LOOKUP = "kiln.lookup"
"""The annotation of the loop over lanes; its value names the instruction."""

_LOADS = 4
"""Lookups at a time where each is a load."""
_WORTH_A_THREAD, _WORTH_A_THREAD_IN_VECTORS = 1 << 15, 1 << 17
"""Bytes below which waking the other threads costs more than it saves."""


def step(name: str, load: Callable[[int, int], Any], codes: Any) -> Any:
    """Return the vector of what the table has at `codes`, a vector of uint8.

    `load(start, count)` gives `count` bytes of the table from `start` on.
    """
    return _STEPS[name](load, codes, codes.ty.dtype.lanes)


def apply(sch: Schedule, target: Target) -> bool:
    """Schedule the kernel if it is a table of bytes; tell whether it is."""
    anchor = find_anchor(sch, NAME)
    if anchor is None or len(all_blocks(sch)) != 1 or not sch.get_loops(anchor):
        return False
    name, lanes = instruction(target), target.lanes("uint8")
    loops = sch.get_loops(anchor)
    flat = sch.fuse(*loops) if len(loops) > 1 else loops[0]
    count = extent(sch, flat)
    vectors, lane = sch.split(flat, [None, lanes if name in _STEPS else _LOADS])
    sch.annotate(vectors, PARTITION, 1)
    if count is None or count >= (_WORTH_A_THREAD_IN_VECTORS if name in _STEPS else _WORTH_A_THREAD):
        sch.parallel(vectors)
    if name in _STEPS:
        sch.annotate(lane, LOOKUP, name)
    else:
        sch.unroll(lane)
    return True


def _vpermi2b(load: Callable[[int, int], Any], codes: Any, lanes: int) -> Any:
    quarters = [load(64 * number, 64) for number in range(4)]
    low, high = (
        _llvm("llvm.x86.avx512.vpermi2var.qi.512", quarters[i], codes, quarters[i + 1]) for i in (0, 2)
    )
    return tirx.Select(codes < _all(128, lanes), low, high)


def _vpshufb(load: Callable[[int, int], Any], codes: Any, lanes: int) -> Any:
    """Of each sixteen bytes, codes outside of them get bit 7, for which the instruction gives zero."""
    total = None
    for number in range(16):
        # TVM joins as many lanes as the vectors have together.
        rows = [load(16 * number, 16)] * (lanes // 16)
        row = tirx.Shuffle(rows, [tirx.const(lane, "int32") for lane in range(lanes)])
        inside = _llvm("llvm.uadd.sat", tirx.bitwise_xor(codes, _all(16 * number, lanes)), _all(112, lanes))
        each = _llvm("llvm.x86.avx512.pshuf.b.512", row, inside)
        total = each if total is None else tirx.bitwise_or(total, each)
    return total


def _tbl(load: Callable[[int, int], Any], codes: Any, lanes: int) -> Any:
    """Of each quarter, `tbx` leaves the lanes alone whose codes are outside of it."""
    total = None
    for quarter in range(4):
        rows = [load(64 * quarter + 16 * number, 16) for number in range(4)]
        inside = codes - _all(64 * quarter, lanes)
        if total is None:
            total = _llvm("llvm.aarch64.neon.tbl4.v16i8", *rows, inside)
        else:
            total = _llvm("llvm.aarch64.neon.tbx4.v16i8", total, *rows, inside)
    return total


def _llvm(name: str, first: Any, *others: Any) -> Any:
    return tirx.call_llvm_pure_intrin(str(first.ty.dtype), name, first, *others)


def _all(value: int, lanes: int) -> Any:
    return tirx.Broadcast(tirx.const(value, "uint8"), lanes)


_STEPS: dict[str, Callable[[Callable[[int, int], Any], Any, int], Any]] = {
    "vpermi2b": _vpermi2b,
    "vpshufb": _vpshufb,
    "tbl": _tbl,
}
