"""Code generation and linking."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tvm
from tvm import relax

from compiler.target import Target


@dataclass(frozen=True)
class Built:
    """A library in TVM's format for its Relax virtual machine, and what came with it.

    `sources` maps a file name to a kernel source or an assembly listing; `notes` are sentences for the
    manifest, such as what could not be run at compile time.
    """

    library: Path
    sources: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def build(mod: tvm.IRModule, target: Target, folder: Path) -> Built:
    """Compile `mod` (scheduled) for `target` into `folder`/model.so."""
    exe = relax.build(mod, target.tvm_target(), exec_mode="bytecode")
    path = folder / "model.so"
    exe.export_library(str(path))
    return Built(path)
