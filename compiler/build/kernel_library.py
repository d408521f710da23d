"""One kernel as a shared library, for a machine that has TVM's runtime: for trials that run elsewhere."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import tvm

from compiler.build.tile_functions import PIPELINE
from compiler.build.toolchain import linker_for
from compiler.target import Target

KERNEL = "main"
TURNS = "turns"
"""Names of the functions in the library: the kernel, and one that calls it many times."""

_TURNS_SOURCE = """
typedef struct { int type; unsigned padding; union { long long number; void *pointer; } value; } Any;
int __tvm_ffi_main(void *self, const Any *arguments, int count, Any *result);

int __tvm_ffi_turns(void *self, const Any *arguments, int count, Any *result) {
  static long long turn;
  long long calls = arguments[0].value.number, copies = arguments[1].value.number;
  int each = (int)((count - 2) / copies);
  for (long long call = 0; call < calls; call++) {
    int failed = __tvm_ffi_main(self, arguments + 2 + (turn++ % copies) * each, each, result);
    if (failed) return failed;
  }
  return 0;
}
"""
"""``turns(calls, copies, arguments of the first copy, of the second, ...)`` in TVM's calling convention
(tvm/ffi/c_api.h): what takes turns among copies of weights on a board is timed without the network."""


def kernel_library(function: Any, target: Target) -> bytes:
    """Return a library for `target` of a PrimFunc that is scheduled for it.

    It has two functions: `KERNEL`, and `TURNS`, which calls it.
    It needs what TVM's runtime and the C library have, and nothing of Kiln's.

    Raises:
        BuildError: a tool is missing or fails.
        Exception: TVM cannot make code of it.
    """
    module = tvm.IRModule({KERNEL: function.with_attr("global_symbol", KERNEL)})
    code = tvm.tirx.build(module, target=target.tvm_target(), pipeline=PIPELINE)
    with tempfile.TemporaryDirectory(prefix="kiln-kernel-") as name:
        folder = Path(name)
        code.write_to_file(str(folder / "kernel.o"))
        (folder / "turns.c").write_text(_TURNS_SOURCE, encoding="ascii")
        library = folder / "kernel.so"
        linker_for(target).link(["kernel.o", "turns.c"], library, folder)
        return library.read_bytes()
