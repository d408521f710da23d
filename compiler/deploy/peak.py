"""What this machine can do at most, measured: multiply-adds in registers, and reading memory.

A kernel cannot take less time than its operations at the one or its bytes at the other (the roofline).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from compiler.deploy.threads import use_threads
from compiler.target import HOST, Target, load

T = TypeVar("T")

SECONDS = 0.4
"""How long each of the two is measured, at least three times."""

_SUMS = 12
"""Vectors that a thread sums in: enough to hide the latency of an instruction; 16 registers hold them."""

_STEPS = 4_000_000
"""Multiply-adds of each of these vectors at a time: some 10 ms on a server, 200 ms on a small board."""

_MOST_BYTES = 256 << 20

# TVMScript as text, for its annotations mean nothing to Python. The factors are read from memory so that
# nothing can be computed before.
_KERNELS = """
@I.ir_module(s_tir=True)
class Module:
    @T.prim_func(s_tir=True)
    def multiply_add(factors: T.Buffer((2,), "float32"), out: T.Buffer((THREADS, WIDTH), "float32")):
        T.func_attr({"global_symbol": "multiply_add", "tirx.noalias": True, "tirx.is_scheduled": True})
        for thread in T.parallel(THREADS):
            sums = T.alloc_buffer((WIDTH,), "float32")
            for i in T.unroll(SUMS):
                for lane in T.vectorized(LANES):
                    sums[i * LANES + lane] = T.Cast("float32", i)
            for _ in range(STEPS):
                for i in T.unroll(SUMS):
                    for lane in T.vectorized(LANES):
                        sums[i * LANES + lane] = sums[i * LANES + lane] * factors[0] + factors[1]
            for i in T.unroll(SUMS):
                for lane in T.vectorized(LANES):
                    out[thread, i * LANES + lane] = sums[i * LANES + lane]

    @T.prim_func(s_tir=True)
    def read(data: T.Buffer((THREADS, ROWS, WIDTH), "float32"), out: T.Buffer((THREADS, WIDTH), "float32")):
        T.func_attr({"global_symbol": "read", "tirx.noalias": True, "tirx.is_scheduled": True})
        for thread in T.parallel(THREADS):
            sums = T.alloc_buffer((WIDTH,), "float32")
            for i in T.unroll(SUMS):
                for lane in T.vectorized(LANES):
                    sums[i * LANES + lane] = T.float32(0)
            for row in range(ROWS):
                for i in T.unroll(SUMS):
                    for lane in T.vectorized(LANES):
                        sums[i * LANES + lane] = sums[i * LANES + lane] + data[thread, row, i * LANES + lane]
            for i in T.unroll(SUMS):
                for lane in T.vectorized(LANES):
                    out[thread, i * LANES + lane] = sums[i * LANES + lane]
"""

_BYTE_KERNEL = """
@I.ir_module(s_tir=True)
class Module:
    @T.prim_func(s_tir=True)
    def products(x: T.Buffer((1,), "int32"), w: T.Buffer((BYTES,), "int8"),
                 out: T.Buffer((THREADS, WIDTH), "int32")):
        T.func_attr({"global_symbol": "products", "tirx.noalias": True, "tirx.is_scheduled": True})
        for thread in T.parallel(THREADS):
            sums = T.alloc_buffer((SUMS,), WORDS)
            for i in T.unroll(SUMS):
                sums[i] = T.Broadcast(T.Cast("int32", i), LANES)
            for turn in range(STEPS):
                for i in T.unroll(SUMS):
                    sums[i] = STEP(sums[i], x[0] + T.Cast("int32", turn), w[T.Ramp(0, 1, BYTES)])
            for i in T.unroll(SUMS):
                out[thread, T.Ramp(i * LANES, 1, LANES)] = sums[i]
"""


@dataclass(frozen=True)
class Peak:
    """What `threads` threads reach: float32 operations in GFLOPS (a multiply-add is two), reads in GB/s."""

    threads: int
    gflops: float
    gb_per_s: float

    def least_ms(self, flops: float, size: int) -> float:
        """Return the milliseconds that `flops` operations on `size` bytes of memory take at least."""
        return max(flops / self.gflops, size / self.gb_per_s) / 1e6


def measure_peak(threads: int) -> Peak:
    """Measure this machine's CPU with `threads` threads; takes about a second."""
    import tvm

    target = load(HOST)
    rows = _rows(target, threads)
    width = _SUMS * target.lanes("float32")
    use_threads(threads)
    library = tvm.tirx.build(_kernels(target, threads, rows), target=target.tvm_target())
    factors = tvm.runtime.tensor(np.array([0.999, 0.5], np.float32))
    # Written to, for pages of zeros that were never written are all the same memory.
    data = tvm.runtime.tensor(np.full((threads, rows, width), 1, np.float32))
    out = tvm.runtime.tensor(np.zeros((threads, width), np.float32))
    compute = median_seconds(lambda: library["multiply_add"](factors, out), SECONDS)
    reading = median_seconds(lambda: library["read"](data, out), SECONDS)
    operations, size = 2 * _STEPS * threads * width, 4 * rows * threads * width
    return Peak(threads, operations / compute / 1e9, size / reading / 1e9)


def measure_byte_peak(threads: int) -> float:
    """Return what this machine's CPU reaches in products of bytes with `threads` threads, in GOPS."""
    import tvm

    target = load(HOST)
    width = _SUMS * target.lanes("int32")
    use_threads(threads)
    library = tvm.tirx.build(_byte_kernel(target, threads), target=target.tvm_target())
    factors = tvm.runtime.tensor(np.arange(4 * target.lanes("int32")).astype(np.int8))
    first = tvm.runtime.tensor(np.array([0x01020304], np.int32))
    out = tvm.runtime.tensor(np.zeros((threads, width), np.int32))
    seconds = median_seconds(lambda: library["products"](first, factors, out), SECONDS)
    return 2 * 4 * _STEPS * threads * width / seconds / 1e9


def _byte_kernel(target: Target, threads: int) -> Any:
    """Return sums of dot products of four bytes by the CPU's best instruction for them.

    One factor is another at each step, so that no product can be taken out of the loop.
    """
    import tvm

    from compiler.schedule.dot_product import instruction, step

    lanes, dtype = target.lanes("int32"), byte_dtype(target)
    name = instruction(target, dtype)
    numbers: dict[str, Any] = {"THREADS": threads, "SUMS": _SUMS, "LANES": lanes, "STEPS": _STEPS}
    numbers |= {"WIDTH": _SUMS * lanes, "BYTES": 4 * lanes, "WORDS": f"int32x{lanes}"}
    names = {"I": tvm.script.ir, "T": tvm.script.tirx}
    steps = {"STEP": lambda sums, x, w: step(name, sums, x, w, lanes, dtype)}
    return tvm.script.from_source(_BYTE_KERNEL, extra_vars={**names, **numbers, **steps})


def byte_dtype(target: Target) -> str:
    """Return the dtype of bytes that the dot products of `target` take beside signed ones."""
    return "uint8" if target.arch.startswith("x86") else "int8"


def _rows(target: Target, threads: int) -> int:
    """Return how many rows a thread reads: together four times what the last cache holds."""
    caches = target.caches
    size = min(4 * max(caches.l3, caches.l2 * target.cores, 8 << 20), _MOST_BYTES, target.memory // 8)
    return max(1, size // (4 * threads * _SUMS * target.lanes("float32")))


def _kernels(target: Target, threads: int, rows: int) -> Any:
    import tvm

    lanes = target.lanes("float32")
    numbers = {"THREADS": threads, "SUMS": _SUMS, "LANES": lanes, "WIDTH": _SUMS * lanes}
    numbers |= {"STEPS": _STEPS, "ROWS": rows}
    names = {"I": tvm.script.ir, "T": tvm.script.tirx}
    return tvm.script.from_source(_KERNELS, extra_vars={**names, **numbers})


def median_seconds(run: Callable[[], Any], seconds: float) -> float:
    """Return the median time of `run` over `seconds`, after a first one that wakes threads and clock."""
    run()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


_BURSTS = 10
"""Times that each of several is run for a moment in `interleaved_seconds`."""


def interleaved_seconds(runs: Sequence[Callable[[], Any]], seconds: float) -> list[float]:
    """Return the median time of each of `runs` over `seconds`, measured in turns, so that drift meets all."""
    found = results_in_turns([partial(_timed, run) for run in runs], seconds, _BURSTS)
    return [float(np.median([time for turn in turns for time in turn])) for turns in found]


def results_in_turns(
    runs: Sequence[Callable[[], T]], seconds: float, turns: int, least: int = 1
) -> list[list[list[T]]]:
    """Call each of `runs` for `seconds`, in `turns` of at least so many calls; return what they gave by turn.

    The first call of a turn finds the others' data in the caches, and is left out.
    """
    found: list[list[list[T]]] = [[] for _ in runs]
    for turn in range(turns):
        for place in sorted(range(len(runs)), reverse=bool(turn % 2)):
            runs[place]()
            until, results = time.perf_counter() + seconds / turns, [runs[place]() for _ in range(least)]
            while time.perf_counter() < until:
                results.append(runs[place]())
            found[place].append(results)
    return found


def _timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
