"""Code generation and linking: a scheduled module becomes one shared library."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import tvm

from compiler.build.accelerator import DeviceCode
from compiler.build.aot import AotLibrary, build_aot, write_c
from compiler.build.c_source import Names
from compiler.build.lower import lower
from compiler.build.pack import write_modules, write_objects
from compiler.build.toolchain import linker_for
from compiler.target import Target, compatible

LIBRARY = "model.so"


@dataclass(frozen=True)
class Built:
    """A library in TVM's format for its Relax virtual machine, or one ahead of time, and what came with it.

    `library` is what is loaded (the header where only C was made), `aot` all that belongs to one of the
    latter kind. `sources` maps a file name to a kernel source, an assembly listing or generated C; `notes`
    are sentences for the manifest, such as what could not be run at compile time.
    """

    library: Path
    sources: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    aot: AotLibrary | None = None


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


def build_ahead(
    mod: tvm.IRModule,
    target: Target,
    folder: Path,
    names: Names,
    *,
    tolerance: float,
    inside: bool = False,
    as_c: bool = False,
) -> Built:
    """Compile `mod` (scheduled for the CPU `target`) ahead of time, see `build_aot`, or write it as C.

    Raises:
        BuildError: no code can be made for a kernel, or a tool is missing or fails.
    """
    if as_c:
        made = write_c(mod, target, folder, names, tolerance=tolerance)
        return Built(made.header, aot=made)
    made = build_aot(mod, target, folder, names, tolerance=tolerance, inside=inside)
    library = made.shared or made.header
    return Built(library, dict(made.sources), tuple(_host_notes(target, False)), made)


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
