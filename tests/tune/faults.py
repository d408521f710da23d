"""A small kernel, and makers of code that go wrong in every way a trial can."""

import functools
import os
import tempfile
import time
from pathlib import Path

import tvm
import tvm_ffi
from tvm import te

from compiler.build.jit import jit
from compiler.build.kernel_library import KERNEL, TURNS, kernel_library
from compiler.build.toolchain import linker_for
from compiler.deploy.threads import use_threads
from compiler.passes.kernels.dense import dense
from compiler.schedule.apply import schedule_kernel
from compiler.schedule.space import from_plain, to_plain
from compiler.target import load
from compiler.tune.trial import Kernel, Tools, Trial


def kernel():
    """Return a dense layer: 8 rows of 16 inputs to 45 outputs."""
    a, b = te.placeholder((8, 16), name="a"), te.placeholder((3, 16, 16), name="b")
    return te.create_prim_func([a, b, dense(a, b, 45)])


def space():
    """Return the rule that takes it, and what that may decide."""
    asked = []

    def listen(rule, found):
        asked.append((rule, found))
        return found.default

    schedule_kernel(kernel(), load("host"), listen)
    return asked[0]


def trials(count):
    """Return the default and other decisions."""
    rule, found = space()
    return [Trial(0, rule, to_plain(each)) for each, _ in zip(found, range(count), strict=False)]


def as_kernel():
    """Return it as workers take it."""
    return Kernel("dense", tvm.ir.save_json(kernel()), (1, 2, 1), 1e-4)


def dies(*arguments):
    """Be code that ends its process."""
    os._exit(11)


def hangs(*arguments):
    """Be code that does not end."""
    time.sleep(1000)


def does_nothing(*arguments):
    """Be code that computes nothing."""


def raises(*arguments):
    """Be code that refuses its arguments."""
    raise ValueError("expected\nother arguments")


def _refused():
    raise RuntimeError("first line\n  the reason")


HURRY = 8
"""Seconds that code which never ends is waited for."""

FAULTS = {
    "crashed: the process that ran it died": lambda: dies,
    f"timed out: no end in {HURRY} s": lambda: hangs,
    "wrong: of the greatest value": lambda: does_nothing,
    "wrong: other arguments": lambda: raises,
    "not built: the process that built it died": dies,
    f"not built: no code in {HURRY} s": hangs,
    "not built: out of memory": lambda: bytearray(1 << 46),
    "not built: the reason": _refused,
}
"""What comes of a trial, and what its maker of code does for that."""


def faulty(functions, target):
    """Make code of kernels: trials 2, 4, ... of `trials` have the faults, one each."""
    return [_faulty(function) or jit([function], target)[0] for function in functions]


def _faulty(function):
    for place, fault in enumerate(FAULTS.values(), 1):
        if tvm_ffi.structural_equal(function, _scheduled(2 * place)):
            return fault()
    return None


@functools.cache
def _scheduled(place):
    decisions = from_plain(trials(place + 1)[place].decisions, space()[1])
    return schedule_kernel(kernel(), load("host"), lambda rule, found: decisions)[0]


def tools(build=jit):
    """Return what workers need."""
    return Tools(build, use_threads)


_BAD_CODE = {
    "crash": "*(volatile int *)0 = 1;",
    "hang": "for (volatile int again = 1; again;) ;",
    "nothing": "",
}
"""What a kernel of a library does in place of its work, in C."""


def bad_library(body, target):
    """Return a library whose kernel has the C code `body`."""
    with tempfile.TemporaryDirectory() as name:
        source = "int __tvm_ffi_{0}(void *a, void *b, int c, void *d) {{ {1} return 0; }}\n"
        text = "".join(source.format(function, body) for function in (KERNEL, TURNS))
        (Path(name) / "bad.c").write_text(text)
        linker_for(target).link(["bad.c"], Path(name) / "bad.so", Path(name))
        return (Path(name) / "bad.so").read_bytes()


def faulty_library(function, target):
    """Make a library of a kernel: of trials 2, 4 and 6 one that crashes, hangs, computes nothing."""
    for place, body in enumerate(_BAD_CODE.values(), 1):
        if tvm_ffi.structural_equal(function, _scheduled(2 * place)):
            return bad_library(body, target)
    return kernel_library(function, target)


def deadly_linker(function, target):
    """End the process that makes a library of trial 1, hang at trial 3."""
    if tvm_ffi.structural_equal(function, _scheduled(1)):
        dies()
    if tvm_ffi.structural_equal(function, _scheduled(3)):
        hangs()
    return kernel_library(function, target)
