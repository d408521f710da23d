"""Ahead of time: a library that calls its kernels itself, and needs nothing but the C library."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx

from compiler.build.c_source import RUNTIME, Names, header, makefile, runner, source, weights_in_c
from compiler.build.embed import embedding
from compiler.build.plain_kernels import Facts, plain_kernels_in_c, write_plain_kernels
from compiler.build.program import Program, program_of
from compiler.build.toolchain import linker_for, static_linker_for
from compiler.support.errors import BuildError
from compiler.target import Target

_RUNTIME_FILES = ("kiln_runtime.h", "kiln_runtime.c", "kiln_weights.c", "kiln_run.inc")
_RUNTIME = ("kiln_runtime", "kiln_weights")
_KERNELS = "kernels.o"
_WEIGHTS = "weights.c"


@dataclass(frozen=True)
class AotLibrary:
    """What was built.

    Attributes:
        names: that C calls things.
        program: what a run does.
        header: ``MODEL.h``.
        shared: ``libMODEL.so``; None where only C was made.
        static: ``libMODEL.a``, the same.
        runner: ``MODEL-run``, the same: a program that needs no library where this machine can link one.
        weights: ``MODEL.weights``; None where they are inside of what was built.
        c: where only C was made, its files but the header.
        sources: the generated C by file names.
    """

    names: Names
    program: Program
    header: Path
    shared: Path | None = None
    static: Path | None = None
    runner: Path | None = None
    weights: Path | None = None
    c: tuple[Path, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files."""
        every = (self.shared, self.static, self.header, self.runner, self.weights, *self.c)
        return tuple(path for path in every if path is not None)


def build_aot(
    mod: tvm.IRModule,
    target: Target,
    folder: Path,
    names: Names,
    *,
    tolerance: float = 1e-4,
    inside: bool = False,
    threads: bool = True,
) -> AotLibrary:
    """Compile `mod`, scheduled for the CPU `target`, into libraries, a header and a runner in `folder`.

    Outputs on the device may be off by `tolerance`, relative to their range. The weights are `inside` of each
    library and program, or in a file beside them. Without `threads` the code knows no pthread.

    Raises:
        BuildError: a shape is known only when it runs, a kernel cannot be compiled, or a tool fails.
    """
    with tempfile.TemporaryDirectory(prefix=".aot.", dir=folder) as name:
        work, model = Path(name), names.model
        kernels = _by_symbol(mod, names)
        facts = write_plain_kernels(kernels, target, work / _KERNELS)
        program, sources = _written(mod, names, facts, work, tolerance, inside)
        if inside:
            text = embedding(target, f"{model}_weights", [f"{model}.weights"], hidden=True)
            (work / _WEIGHTS).write_text(text, encoding="utf-8")
        (work / "exports.map").write_text(_exports(model), encoding="utf-8")
        flags = () if threads else ("-DKILN_NO_THREADS",)
        shared, static = _linked(target, model, work, inside, flags)
        run = _runner(target, model, work, inside, flags)

        def kept(path: Path) -> Path:
            return path.replace(folder / path.name)

        return AotLibrary(
            names=names,
            program=program,
            header=kept(work / f"{model}.h"),
            shared=kept(shared),
            static=kept(static),
            runner=kept(run),
            weights=None if inside else kept(work / f"{model}.weights"),
            sources=sources,
        )


def write_c(
    mod: tvm.IRModule, target: Target, folder: Path, names: Names, *, tolerance: float = 1e-4
) -> AotLibrary:
    """Write `mod`, scheduled for the CPU `target`, as C into `folder`: for a compiler of the user's.

    The kernels use one thread, and the weights are an array.

    Raises:
        BuildError: a shape is known only when it runs, or there is no C for a kernel.
    """
    model = names.model
    text, facts = plain_kernels_in_c(_by_symbol(mod, names), target)
    program, sources = _written(mod, names, facts, folder, tolerance, True)
    written = {
        f"{model}_kernels.c": text,
        f"{model}_weights.c": weights_in_c(model, (folder / f"{model}.weights").read_bytes()),
        "Makefile": makefile(model),
    }
    (folder / f"{model}.weights").unlink()
    for name, content in written.items():
        (folder / name).write_text(content, encoding="utf-8")
    header, *others = (folder / name for name in (*sources, *written, *_RUNTIME_FILES))
    return AotLibrary(names, program, header, c=tuple(others))


def _written(
    mod: tvm.IRModule, names: Names, facts: Facts, work: Path, tolerance: float, inside: bool
) -> tuple[Program, dict[str, str]]:
    """Write weights and all C but the kernels'; return the program, and that C, header first."""
    program = program_of(mod, {name: facts[names.kernel(name)] for name in _kernels(mod)})
    model = names.model
    digest = _write_weights(program.weights, program.weight_bytes, work / f"{model}.weights")
    sources = {
        f"{model}.h": header(program, names, inside),
        f"{model}.c": source(program, names, digest, inside),
        f"{model}_run.c": runner(names, tolerance),
    }
    for each, text in sources.items():
        (work / each).write_text(text, encoding="utf-8")
    for each in _RUNTIME_FILES:
        shutil.copy(RUNTIME / each, work / each)
    return program, sources


def _by_symbol(mod: tvm.IRModule, names: Names) -> dict[str, Any]:
    """Return the kernels by the names of their C functions."""
    return {names.kernel(name): function for name, function in _kernels(mod).items()}


def _linked(
    target: Target, model: str, work: Path, inside: bool, flags: tuple[str, ...]
) -> tuple[Path, Path]:
    """Link the shared and the static library of what is in `work`."""
    linker = linker_for(target)
    objects = [_KERNELS]
    for name in (model, *_RUNTIME, *(["weights"] if inside else [])):
        linker.compile(f"{name}.c", f"{name}.o", work, "-fvisibility=hidden", *flags)
        objects.append(f"{name}.o")
    shared, static = work / f"lib{model}.so", work / f"lib{model}.a"
    linker.link(["-Wl,--version-script=exports.map", *objects], shared, work)
    linker.archive(objects, static, work)
    return shared, static


def _runner(target: Target, model: str, work: Path, inside: bool, flags: tuple[str, ...]) -> Path:
    """Link the runner: static where that can be."""
    program = work / f"{model}-run"
    files = [f"{model}_run.c", f"{model}.c", *(f"{name}.c" for name in _RUNTIME), _KERNELS]
    try:
        linker = static_linker_for(target)
    except BuildError:
        linker = linker_for(target)
    linker.program([*files, *([_WEIGHTS] if inside else [])], program, work, *flags)
    return program


def _exports(model: str) -> str:
    """Return a linker's list of what the library shows."""
    functions = (
        "create", "run", "run_arrays", "run_watched", "set_sizes", "shape", "check_weights", "threads",
        "error", "destroy", "memory_bytes",
    )  # fmt: skip
    kinds = ("input", "output", "step", "size")
    tables = [f"{each}{ending}" for each in kinds for ending in ("s", "_count")]
    names = "".join(f" {model}_{each};" for each in (*functions, *tables))
    return f"{{ global:{names} local: *; }};\n"


def _kernels(mod: tvm.IRModule) -> Mapping[str, Any]:
    return {
        variable.name_hint: function
        for variable, function in mod.functions_items()
        if isinstance(function, tirx.PrimFunc)
    }


def _write_weights(weights: Mapping[int, tvm.runtime.Tensor], size: int, path: Path) -> bytes:
    """Write the weights at their offsets, `size` bytes, and the SHA-256 of those; return that."""
    digest, end = hashlib.sha256(), 0
    with path.open("wb") as stream:
        for offset in sorted(weights):
            # One at a time: all together they may be as large as memory allows.
            for data in (bytes(offset - end), weights[offset].numpy().tobytes()):
                digest.update(data)
                stream.write(data)
            end = stream.tell()
        rest = bytes(size - end)
        digest.update(rest)
        stream.write(rest + digest.digest())
    return digest.digest()
