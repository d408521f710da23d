"""The whole pipeline on one page: from a model to a library that runs, each step named.

    import    the model becomes one IRModule with a signature
    optimize  the passes: fold, lower, lay out, fuse
    schedule  every kernel gets a schedule for the target
    build     code generation and linking
    check     the library computes what the original computes
    golden    inputs and outputs for whoever verifies the bundle later
    bundle    everything in one file

This is the only module that joins stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compiler import frontend
from compiler.build import Built, build
from compiler.bundle import (
    FORMAT,
    LIBRARY,
    CheckInfo,
    Golden,
    Manifest,
    PassInfo,
    describe_target,
    installed_versions,
)
from compiler.bundle.arrays import to_npy
from compiler.deploy import ALIGNMENT, CompiledModel, Session, choose_threads, run_library, why_no_device
from compiler.frontend import check as checking
from compiler.frontend.random_inputs import fresh_inputs
from compiler.passes import PassRecord, optimize
from compiler.schedule import KernelRecord, schedule
from compiler.support.errors import UsageError
from compiler.support.files import check_writable, make_private_folder, private_folder, remove_folder
from compiler.support.progress import note, stage
from compiler.target import HOST, Target, compatible
from compiler.target import load as load_target


@dataclass(frozen=True)
class _Library:
    """One model built for one target."""

    target: Target
    built: Built
    passes: list[PassRecord]
    kernels: list[KernelRecord]


def compile(
    model: Any,
    example_inputs: Any = None,
    *,
    target: str | Path | Target = HOST,
    output: str | Path | None = None,
    threads: int | None = None,
    check: bool = True,
    seed: int = 0,
    dump_ir: str | Path | None = None,
    inputs: Sequence[str] | None = None,
    dynamic: Mapping[str, Any] | None = None,
    state: str = "refuse",
) -> CompiledModel:
    """Compile a model for a target.

    Args:
        model: an nn.Module, an ExportedProgram, the path of a ``.pt2``, ``.onnx`` or TorchScript file, or
            the text ``package.module:factory``.
        example_inputs: what forward is called with: a tensor, a sequence, or a mapping by name. Not needed
            where the model declares them.
        target: the name of a target (``kiln targets``), a descriptor's path or a `Target`.
        output: where to write the bundle; None writes none (`CompiledModel.save` can later).
        threads: threads to run on; None means one per physical core of the machine that runs it.
        check: compare the compiled model with the original on fresh random inputs and the examples.
        seed: of those inputs.
        dump_ir: a folder for the numbered IR after each pass.
        inputs: inputs described as text, such as ``"x=Nx3x224x224:float32"``.
        dynamic: dimensions that may vary, such as ``{"x": {0: "N"}}``.
        state: ``"refuse"`` a model that changes its buffers, or make its state ``"explicit"``.

    Raises:
        KilnError: one of its kinds, see `compiler.support.errors`; nothing is left half-written.
    """
    device = load_target(target)
    folder = make_private_folder()
    try:
        _check_request(device, output, threads, dump_ir)
        with stage("import"):
            imported = frontend.load(model, example_inputs, inputs=inputs, dynamic=dynamic, state=state)
        library = _build(imported.mod, device, folder, dump_ir)
        compiled = _finish(imported, library, folder, threads, seed, check)
        if output is not None:
            with stage("bundle"):
                compiled.save(output)
        return compiled
    except BaseException:
        remove_folder(folder)
        raise


def _check_request(
    target: Target, output: str | Path | None, threads: int | None, dump: str | Path | None
) -> None:
    """Refuse now what would only fail after the work is done."""
    if threads is not None and threads < 1:
        raise UsageError(f"expected at least 1 thread, got {threads}")
    if _why_not_here(target) is None:
        choose_threads(threads)
    if output is not None:
        check_writable(Path(output))
    if dump is not None:
        try:
            Path(dump).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot write the IR to '{dump}': {error.strerror or error}") from error


def _build(mod: Any, target: Target, folder: Path, dump: str | Path | None = None) -> _Library:
    with stage("optimize"):
        mod, passes = optimize(mod, target, dump=Path(dump) if dump is not None else None)
    with stage("schedule"):
        mod, kernels = schedule(mod, target)
    with stage("build"):
        return _Library(target, build(mod, target, folder), passes, kernels)


def _finish(
    model: frontend.Model, library: _Library, folder: Path, threads: int | None, seed: int, wanted: bool
) -> CompiledModel:
    """Check what was built, run it for golden data, and put the manifest together."""
    elsewhere = _why_not_here(library.target)
    session = _session(model, library, threads) if elsewhere is None else None
    info, notes = None, [*model.notes, *library.built.notes]
    if elsewhere is not None:
        notes.append(f"not run at compile time: the library for '{library.target.name}' ({elsewhere})")
    if not wanted:
        notes.append("not checked against the original (--no-check)")
    with private_folder() as scratch:
        runner = session
        if runner is None and wanted:
            note(f"{elsewhere}: a build for this machine is checked instead")
            runner = _session(model, _build(model.mod, load_target(HOST), scratch), None)
        if wanted and runner is not None:
            with stage("check"):
                info, more = _check(model, runner, "library" if session else "host build", scratch, seed)
                notes += more
        with stage("golden"):
            golden, contents = _golden(model, runner, seed)
    manifest = _manifest(model, library, threads, info, golden, notes)
    files: dict[str, bytes | Path] = {
        f"sources/{name}": text.encode() for name, text in library.built.sources.items()
    }
    return CompiledModel(
        session, manifest, {LIBRARY: library.built.library, **contents, **files}, folder, elsewhere or ""
    )


def _check(
    model: frontend.Model, runner: Session, ran: str, scratch: Path, seed: int
) -> tuple[CheckInfo | None, tuple[str, ...]]:
    """Compare with the original; on failure each layer is compiled on its own to find the first wrong one."""

    def execute(mod: Any, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        host = load_target(HOST)
        optimized, _ = optimize(mod, host)
        scheduled, _ = schedule(optimized, host)
        return run_library(build(scheduled, host, scratch).library, arrays, runner.threads)

    report = checking.check(model, _flat(runner), execute=execute, seed=seed)
    note(str(report))
    if not report.outputs:
        return None, report.notes
    error, tolerance = report.worst.relative_error, checking.TOLERANCE
    return CheckInfo(ran=ran, error=error, tolerance=tolerance, summary=str(report.worst)), report.notes


def _golden(
    model: frontend.Model, runner: Session | None, seed: int
) -> tuple[Golden | None, dict[str, bytes | Path]]:
    """Return golden data from the original, or from the library where the original cannot be run."""
    run = model.reference or (_flat(runner) if runner else None)
    if run is None:
        return None, {}
    arrays = list(model.examples) or fresh_inputs(model, seed)
    inputs = {f"golden/input_{i}.npy": to_npy(array) for i, array in enumerate(arrays)}
    outputs = {f"golden/output_{i}.npy": to_npy(array) for i, array in enumerate(run(arrays))}
    source = "reference" if model.reference else "library"
    golden = Golden(inputs=tuple(inputs), outputs=tuple(outputs), source=source, tolerance=checking.TOLERANCE)
    return golden, {**inputs, **outputs}


def _manifest(
    model: frontend.Model,
    library: _Library,
    threads: int | None,
    check: CheckInfo | None,
    golden: Golden | None,
    notes: Sequence[str],
) -> Manifest:
    kiln, tvm, torch = installed_versions()
    return Manifest(
        format=FORMAT,
        kiln=kiln,
        tvm=tvm,
        torch=torch,
        model=model.origin,
        signature=model.signature,
        target=describe_target(library.target),
        threads=threads,
        alignment=ALIGNMENT,
        passes=tuple(PassInfo(name=p.name, seconds=p.seconds, summary=p.summary) for p in library.passes),
        kernels={record.kernel: record.rule for record in library.kernels},
        check=check,
        golden=golden,
        notes=tuple(dict.fromkeys(notes)),
        parts={},
    )


def _session(model: frontend.Model, library: _Library, threads: int | None) -> Session:
    return Session(library.built.library, model.signature, threads=threads, kind=library.target.kind)


def _flat(session: Session) -> Any:
    """Return a function from arrays to arrays, both flat and in signature order."""
    names = [spec.name for spec in session.signature.inputs]
    return lambda arrays: list(session.run(dict(zip(names, arrays, strict=True))).values())


def _why_not_here(target: Target) -> str | None:
    return compatible(target) or why_no_device(target.kind)
