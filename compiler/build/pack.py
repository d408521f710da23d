"""Puts an executable's modules (instructions, weights, device code) into a library as one symbol.

TVM would hand them to LLVM as one constant: several copies of the weights in memory and most of the link's
time. Here they go through files, which the assembler includes as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tvm

from compiler.build.device_code import (
    MACHINE_CODE,
    LibraryBinary,
    read_library,
    write_module,
    write_tree,
)
from compiler.build.embed import embedding
from compiler.support.errors import InternalError
from compiler.target import Target

SYMBOL = "__tvm_ffi__library_bin"
"""What TVM's loader looks for in a library."""

EXECUTABLE = "relax.VMExecutable"
SOURCE = "modules.c"

Rewrite = Callable[[str, bytes], bytes]
"""Takes the kind and the bytes of a serialized device module, returns its new bytes."""


def write_objects(executable: Any, folder: Path) -> list[str]:
    """Write the machine code of `executable` into `folder`; return the object files' names."""
    names = []
    for index, module in enumerate(executable.mod._collect_dso_modules()):
        form = "o" if module.kind != "c" else "c"
        names.append(f"kernels{index}.{form}")
        module.write_to_file(str(folder / names[-1]))
    return names


def write_modules(executable: Any, target: Target, folder: Path, rewrite: Rewrite) -> str:
    """Write all that `executable` holds beside machine code into `folder`; return a C file's name.

    The C file has no C in it, only the directives that include the pieces.

    Raises:
        InternalError: TVM made a tree of modules that is not known here.
    """
    binary = _kernels_binary(executable)
    root = folder / "executable.bin"
    # The one file format of an executable is its serialized form.
    executable.mod.write_to_file(str(root))
    weights = root.stat().st_size
    head = write_tree(*binary.under_root()) + write_module(EXECUTABLE, b"")[:-8] + struct.pack("<Q", weights)
    tail = b"".join(
        write_module(kind, None if data is None else rewrite(kind, data)) for kind, data in binary.modules
    )
    (folder / "head.bin").write_bytes(struct.pack("<Q", len(head) + weights + len(tail)) + head)
    (folder / "tail.bin").write_bytes(tail)
    (folder / SOURCE).write_text(embedding(target, SYMBOL, ["head.bin", root.name, "tail.bin"]))
    return SOURCE


def _kernels_binary(executable: Any) -> LibraryBinary:
    """Return the modules that the executable imports: its machine code, and device code below it."""
    imports = list(executable.mod.imports)
    if executable.mod.kind != EXECUTABLE or len(imports) != 1:
        kinds = [module.kind for module in imports]
        raise InternalError(f"expected an executable with one module of kernels, got {kinds}")
    packed = tvm.runtime._ffi_api.ModulePackImportsToTensor(imports[0])
    binary = read_library(packed.numpy().tobytes())
    if binary.modules[0][0] != MACHINE_CODE:
        raise InternalError(f"expected machine code under the executable, got '{binary.modules[0][0]}'")
    return binary
