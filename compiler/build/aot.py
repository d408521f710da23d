"""Ahead of time: a library that calls its kernels itself, and needs nothing but the C library."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import tirx

from compiler.build.c_source import RUNTIME, Names, header, runner, source
from compiler.build.embed import embedding
from compiler.build.plain_kernels import write_plain_kernels
from compiler.build.program import Program, program_of
from compiler.build.toolchain import linker_for, static_linker_for
from compiler.support.errors import BuildError
from compiler.target import Target

_RUNTIME_FILES = ("kiln_runtime.h", "kiln_runtime.c", "kiln_run.inc")


@dataclass(frozen=True)
class AotLibrary:
    """What was built.

    Attributes:
        shared: ``libMODEL.so``.
        static: ``libMODEL.a``.
        header: ``MODEL.h``.
        runner: ``MODEL-run``, a program that needs no library; None where nothing can link one.
        program: what a run does.
        scratch: bytes that kernels need beside the arena for each thread but the caller's.
    """

    shared: Path
    static: Path
    header: Path
    runner: Path | None
    program: Program
    scratch: int


def build_aot(
    mod: tvm.IRModule, target: Target, folder: Path, names: Names, tolerance: float = 1e-4
) -> AotLibrary:
    """Compile `mod`, scheduled for the CPU `target`, into libraries, a header and a runner in `folder`.

    Outputs on the device may be off by `tolerance`, relative to their range.

    Raises:
        BuildError: a shape is known only when it runs, a kernel cannot be compiled, or a tool fails.
    """
    with tempfile.TemporaryDirectory(prefix=".aot.", dir=folder) as name:
        work = Path(name)
        functions = _kernels(mod)
        by_symbol = {names.kernel(name): function for name, function in functions.items()}
        memory = write_plain_kernels(by_symbol, target, work / "kernels.o")
        program = program_of(mod, {name: memory.caller[names.kernel(name)] for name in functions})
        _write_weights(program.weights, program.weight_bytes, work / "weights.bin")
        files = {
            f"{names.model}.h": header(program, names, memory.worker),
            f"{names.model}.c": source(program, names),
            f"{names.model}_run.c": runner(names, tolerance),
            "weights.c": embedding(target, f"{names.model}_weights", ["weights.bin"], hidden=True),
            "exports.map": _exports(names.model),
        }
        for each, text in files.items():
            (work / each).write_text(text, encoding="utf-8")
        for each in _RUNTIME_FILES:
            shutil.copy(RUNTIME / each, work / each)
        made = _linked(target, names.model, work)
        program_file = _runner(target, names.model, work)
        shared, static, head = (
            each.replace(folder / each.name) for each in (*made, work / f"{names.model}.h")
        )
        run = None if program_file is None else program_file.replace(folder / program_file.name)
    return AotLibrary(shared, static, head, run, program, memory.worker)


def _linked(target: Target, model: str, work: Path) -> tuple[Path, Path]:
    """Link the shared and the static library of what is in `work`."""
    linker = linker_for(target)
    objects = ["kernels.o"]
    for name in (model, "kiln_runtime", "weights"):
        linker.compile(f"{name}.c", f"{name}.o", work, "-fvisibility=hidden")
        objects.append(f"{name}.o")
    shared, static = work / f"lib{model}.so", work / f"lib{model}.a"
    linker.link(["-Wl,--version-script=exports.map", *objects], shared, work)
    linker.archive(objects, static, work)
    return shared, static


def _runner(target: Target, model: str, work: Path) -> Path | None:
    """Link the runner, if this machine can."""
    try:
        linker = static_linker_for(target)
    except BuildError:
        return None
    program = work / f"{model}-run"
    linker.program(
        [f"{model}_run.c", f"{model}.c", "kiln_runtime.c", "weights.c", "kernels.o"], program, work
    )
    return program


def _exports(model: str) -> str:
    """Return a linker's list of what the library shows."""
    functions = ("create", "run", "run_arrays", "run_timed", "threads", "error", "destroy", "memory_bytes")
    tables = ("inputs", "outputs", "steps", "input_count", "output_count", "step_count")
    names = "".join(f" {model}_{each};" for each in (*functions, *tables))
    return f"{{ global:{names} local: *; }};\n"


def _kernels(mod: tvm.IRModule) -> Mapping[str, Any]:
    return {
        variable.name_hint: function
        for variable, function in mod.functions_items()
        if isinstance(function, tirx.PrimFunc)
    }


def _write_weights(weights: Mapping[int, np.ndarray], size: int, path: Path) -> None:
    with path.open("wb") as stream:
        for offset, array in weights.items():
            stream.seek(offset)
            stream.write(np.ascontiguousarray(array).tobytes())
        stream.truncate(size)
