"""What kind of library a bundle holds: one that needs nothing (ahead of time), or one for TVM's runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.build import Built, Names, cpu_checks, identifiers, why_not_ahead
from compiler.build.tvm_runtime import fetch_runtime
from compiler.bundle import LIBRARY, AotInfo, Contents, StepInfo
from compiler.deploy import AotFiles
from compiler.frontend.levels import as_dtype, layer_levels
from compiler.frontend.model import Model
from compiler.support.errors import BuildError, InternalError, UsageError
from compiler.support.progress import note
from compiler.target import Target

KINDS = ("auto", "aot", "tvm", "c-source")
"""What `compile` takes: ``auto`` is ``aot`` where that can be."""


@dataclass(frozen=True)
class Ahead:
    """How to build ahead of time.

    `required` tells that nothing else will do; the weights are `inside` of the library, or in a file; `as_c`
    tells to write C, and compile nothing.
    """

    names: Names
    tolerance: float
    required: bool
    inside: bool
    as_c: bool


def ahead(
    model: Model, target: Target, kind: str, *, name: str | None, weights: str, tolerance: float
) -> Ahead | None:
    """Return how to build `model` ahead of time, None to build it for TVM's runtime.

    Raises:
        UsageError: there is no such kind, or the target cannot have it.
    """
    if kind not in KINDS:
        raise UsageError(f"expected the kind of bundle {' or '.join(KINDS)}, got '{kind}'")
    if weights not in ("file", "inside"):
        raise UsageError(f"expected weights in a file or inside, got '{weights}'")
    as_c, inside = kind == "c-source", weights == "inside"
    # Android has no C library of zig's: the NDK's compiler makes it possible.
    system = target.os == "linux" or (target.os == "android" and target.toolchain.compiler)
    possible = target.kind == "cpu" and (system or as_c)
    if kind in ("aot", "c-source") and not possible:
        raise UsageError(
            f"a library ahead of time is for CPUs under Linux, and C for CPUs; '{target.name}' is "
            f"{target.kind} under {target.os}: take --kind tvm"
        )
    if kind == "tvm" or not possible:
        if name is not None or inside:
            raise UsageError("--name and --weights are for libraries ahead of time (--kind aot)")
        return None
    names = _names(model, target, name)
    return Ahead(names, tolerance, kind != "auto", inside, as_c)


def _names(model: Model, target: Target, name: str | None) -> Names:
    own = name if name is not None else model_name(model.origin)
    if name is not None and identifiers([name]) != [name]:
        raise UsageError(f"expected a name for C such as '{identifiers([name])[0]}', got '{name}'")
    (prefix,) = identifiers([own])
    signature = model.signature
    specs = (*signature.inputs, *signature.outputs)
    words = identifiers([spec.name for spec in specs])
    count = len(signature.inputs)
    return Names(
        prefix,
        words[:count],
        words[count:],
        model.layers,
        [f"Made from {model.origin} for {target.name} ({target.triple}, {target.cpu})."],
        target.cpu,
        cpu_checks(target),
        {word: spec.levels for word, spec in zip(words, specs, strict=True) if spec.levels is not None},
    )


def model_name(origin: str) -> str:
    """Return the name of what a model was made from: its factory's, or its file's without the ending."""
    path, _, factory = origin.rpartition(":")
    return factory if path else Path(origin).stem


def settle(how: Ahead | None, scheduled: Any, target: Target) -> Ahead | None:
    """Return `how`, or None where a module scheduled for `target` cannot be built so.

    Raises:
        BuildError: it cannot, and has to.
    """
    if how is None or (reason := why_not_ahead(scheduled, target.memory)) is None:
        return how
    if how.required:
        raise BuildError(f"no library ahead of time can be made: {reason}; take --kind tvm")
    note(f"the bundle is for TVM's runtime: {reason}")
    return None


def loadable(built: Built) -> Path | AotFiles:
    """Return what `Session` loads.

    Raises:
        InternalError: nothing was compiled.
    """
    if built.aot is None:
        return built.library
    if built.aot.shared is None:
        raise InternalError("C was made, and nothing that can be loaded")
    return AotFiles(built.aot.shared, built.aot.names.model, built.aot.weights)


def library_parts(built: Built) -> Contents:
    """Return the files of a library by their names in the bundle."""
    if built.aot is not None:
        return {path.name: path for path in built.aot.files}
    return {LIBRARY: built.library}


def runtime_parts(built: Built, target: Target, folder: Path) -> Contents:
    """Return TVM's runtime for a target by its files' names in the bundle.

    Raises:
        UsageError: the library does not need it.
        BuildError: it cannot be had.
    """
    if built.aot is not None:
        raise UsageError("a library ahead of time needs no runtime: --with-runtime is for --kind tvm")
    place = folder / "runtime"
    place.mkdir()
    return {path.name: path for path in fetch_runtime(target, place)}


def aot_info(built: Built, mod: Any) -> AotInfo | None:
    """Return what the manifest says about a library ahead of time; `mod` is what the model is as imported."""
    made = built.aot
    if made is None:
        return None
    levels = layer_levels(mod)
    steps = tuple(
        StepInfo(
            kernel=step.kernel,
            node=step.layer,
            layer=made.names.layer(step),
            outputs=tuple((each.shape, each.dtype) for each in step.outputs),
            arena=alive,
            levels=as_dtype(levels[step.layer], step.outputs[0].dtype) if step.layer in levels else None,
        )
        for step, alive in zip(made.program.steps, made.program.plan.alive, strict=False)
    )
    code = 0 if made.shared is None else made.shared.stat().st_size
    return AotInfo(
        name=made.names.model,
        header=made.header.name,
        library=_name(made.shared),
        archive=_name(made.static),
        runner=_name(made.runner),
        weights=_name(made.weights),
        c=tuple(path.name for path in made.c),
        arena_bytes=made.program.plan.size,
        arena_least=made.program.plan.least,
        scratch_bytes=made.program.scratch,
        weight_bytes=made.program.weight_bytes,
        code_bytes=code - (0 if made.weights or not code else made.program.weight_bytes),
        steps=steps,
    )


def _name(path: Path | None) -> str | None:
    return None if path is None else path.name
