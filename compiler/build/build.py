"""Code generation and linking: a scheduled module becomes one shared library."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import tvm

from compiler.build.accelerator import DeviceCode
from compiler.build.lower import lower
from compiler.build.pack import write_modules, write_objects
from compiler.build.toolchain import linker_for
from compiler.target import Target, compatible

LIBRARY = "model.so"


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
    """Compile `mod` (scheduled for `target`) into `folder`/model.so.

    The weights go from memory to the library through files in `folder`; what is needed beside the weights
    themselves is one copy of them in memory, and twice their size on disk.

    Raises:
        BuildError: no code can be made for a kernel, or a tool is missing or fails.
    """
    linker = linker_for(target)
    executable = lower(mod, target)
    device = DeviceCode(target)
    with tempfile.TemporaryDirectory(prefix=".build.", dir=folder) as name:
        work = Path(name)
        device.folder = work
        inputs = write_objects(executable, work)
        inputs.append(write_modules(executable, target, work, device.rewrite))
        linker.link(inputs, work / LIBRARY, work)
        # A library of that name may be loaded: it keeps its file, and this becomes another.
        library = (work / LIBRARY).replace(folder / LIBRARY)
    notes = [*device.notes(), *_host_notes(target, linker.open_libc)]
    return Built(library, device.sources, tuple(notes))


def _host_notes(target: Target, open_libc: bool) -> list[str]:
    notes = []
    if target.kind == "cpu" and (why := compatible(target)):
        notes.append(f"the code for {target.cpu} ({target.triple}) was linked, but not run: {why}")
    if open_libc:
        notes.append(
            "linked without a C library: the functions of libc and libm that the library calls are found in "
            "the process that loads it"
        )
    return notes
