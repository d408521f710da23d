"""The IR after each pass as text that can be read back.

A dump is TVMScript; its weights lie beside it, one ``constants/<sha256>.npy`` for each value, however many
dumps use it. The first lines of a dump say which constant is which.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compiler.support.errors import UsageError
from compiler.support.files import atomic_path

_CONSTANT = "# constant "


def write(mod: tvm.IRModule, path: Path) -> None:
    """Write `mod` to `path`, and its constants to the folder ``constants`` beside it.

    Raises:
        UsageError: the folder cannot be written.
    """
    folder = path.parent / "constants"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write the IR to '{path.parent}': {error.strerror}") from error
    names = [_write_constant(constant, folder) for constant in _constants(mod)]
    header = "".join(f"{_CONSTANT}{name}\n" for name in names)
    with atomic_path(path) as temporary:
        temporary.write_text(header + mod.script(show_meta=False) + "\n", encoding="utf-8")


def read(path: Path) -> tvm.IRModule:
    """Return the module that `write` wrote to `path`.

    Raises:
        UsageError: the file, or one of its constants, is missing.
    """
    try:
        text = path.read_text(encoding="utf-8")
        names = [line[len(_CONSTANT) :] for line in text.splitlines() if line.startswith(_CONSTANT)]
        arrays = [np.load(path.parent / "constants" / f"{name}.npy", allow_pickle=False) for name in names]
    except OSError as error:
        raise UsageError(f"cannot read the IR dump '{path}': {error.strerror}: {error.filename}") from error
    metadata = {"ir.GenericConst": [relax.const(array, str(array.dtype)) for array in arrays]}
    names_in_scope = {
        "I": tvm.script.ir,
        "R": tvm.script.relax,
        "T": tvm.script.tirx,
        "metadata": metadata,
    }
    return tvm.script.from_source(text, extra_vars=names_in_scope)


def _constants(mod: tvm.IRModule) -> list[Any]:
    """Return the constants that TVMScript prints by number, in the order of these numbers."""
    found: list[Any] = []

    def visit(expr: Any) -> None:
        # A scalar is printed in place.
        if (
            isinstance(expr, tvm.ir.GenericConst)
            and expr.value.ndim
            and not any(expr.same_as(c) for c in found)
        ):
            found.append(expr)

    for _, function in sorted(mod.functions_items(), key=lambda item: item[0].name_hint):
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, visit)
    return found


def _write_constant(constant: Any, folder: Path) -> str:
    buffer = io.BytesIO()
    np.save(buffer, constant.value.numpy(), allow_pickle=False)
    name = hashlib.sha256(buffer.getbuffer()).hexdigest()
    path = folder / f"{name}.npy"
    if not path.exists():
        with atomic_path(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
    return name
