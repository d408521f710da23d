"""The whole pipeline on one page: from a model to a library that runs, each step named.

    import    the model becomes one IRModule with a signature
    compress  where wanted: fewer bits, from data (`compiler.driver_compress`)
    optimize  the passes: fold, lower, lay out, fuse
    schedule  every kernel gets a schedule for the target
    build     code generation and linking
    check     the library computes what the original computes
    golden    inputs and outputs for whoever verifies the bundle later
    bundle    everything in one file

This is the only module that joins stages.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compiler import frontend
from compiler.build import Built, build, build_ahead
from compiler.bundle import CheckInfo, Contents, Golden, describe, store_golden
from compiler.compress.calibrate import Run
from compiler.compress.images import ImageTransform
from compiler.compress.page import write_page
from compiler.compress.quantize import Build
from compiler.compress.recipe import Recipe
from compiler.deploy import (
    ALIGNMENT,
    CompiledModel,
    Session,
    choose_threads,
    run_library,
    use_threads,
    why_not_run,
)
from compiler.driver_bundle import Ahead, ahead, aot_info, library_parts, loadable, runtime_parts, settle
from compiler.driver_compress import (
    assess,
    check_library,
    compress,
    describe_quantization,
    make_request,
    quantized_golden,
    with_report,
)
from compiler.frontend import check as checking
from compiler.frontend.model_file import write_model
from compiler.frontend.random_inputs import fresh_inputs
from compiler.passes import is_quantized, optimize
from compiler.passes.choices import Choose, laid_out, usual
from compiler.schedule import KernelRecord, schedule
from compiler.schedule.tuned import Tuned, read_tuned
from compiler.support.errors import UsageError
from compiler.support.files import check_room, check_writable, folder_for_long, make_folder, private_folder
from compiler.support.progress import note, stage
from compiler.support.signature import Signature
from compiler.target import HOST, Target
from compiler.target import load as load_target

_ROOM = 16 << 20
"""Bytes of temporary files that a library takes besides its constants."""


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
    quantize: str | Path | Recipe | None = None,
    calibrate: Any = None,
    transform: str | ImageTransform | None = None,
    max_drop: float | None = None,
    evaluate: Any = None,
    statistics: str | Path | None = None,
    report: str | Path | None = None,
    logs: str | Path | None = None,
    kind: str = "auto",
    name: str | None = None,
    weights: str = "file",
    with_runtime: bool = False,
) -> CompiledModel:
    """Compile a model for a target.

    Args:
        model: an nn.Module, an ExportedProgram, the path of a ``.pt2``, ``.onnx``, TorchScript or ``.kq``
            file, or the text ``package.module:factory``.
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
        quantize: a scheme such as ``"int8"``, a recipe or the path of one (``.yaml``); None stays in float.
        calibrate: data for it, as `compiler.compress.data.open_data` takes it; None takes random numbers.
        transform: of images in a folder of such data, such as ``"resize=256,crop=224"``.
        max_drop: how much lower the score of the quantized model may be than in float. The most sensitive
            layers stay in float until it is.
        evaluate: a function, or ``"module:function"``, that gives the score of what it is given: a function
            from a list of inputs to a list of outputs. None takes the agreement with float in percent.
        statistics: a file (``.npz``) of what was observed on the data: read if it is there, else written.
        report: where to write a page (``.html``) about the quantization.
        logs: a tuning log, or a folder of them, to be used beside those that Kiln ships and the user's own.
        kind: of the bundle: ``"aot"``, a library that needs nothing; ``"tvm"``, one for TVM's runtime;
            ``"auto"``, the former where that can be.
        name: the prefix of the library's names in C, by default made of the model's.
        weights: of an ``"aot"`` library: in a ``"file"`` beside it, or ``"inside"``.
        with_runtime: put TVM's runtime for the target into a ``"tvm"`` bundle, from the package index.

    Raises:
        KilnError: one of its kinds, see `compiler.support.errors`; nothing is left half-written.
    """
    device = load_target(target)
    elsewhere = "nothing was compiled (--kind c-source)" if kind == "c-source" else why_not_run(device)
    _refuse_early(output, threads, dump_ir, here=elsewhere is None)
    _refuse_alone(
        model,
        quantize,
        report,
        calibrate=calibrate,
        transform=transform,
        max_drop=max_drop,
        evaluate=evaluate,
        statistics=statistics,
    )
    request = None
    if quantize is not None:
        request = make_request(
            quantize, calibrate, transform=transform, max_drop=max_drop, evaluate=evaluate,
            sensitivity=report is not None, seed=seed, check=check, statistics=statistics,
        )  # fmt: skip
    with folder_for_long() as folder:
        with stage("import"):
            imported = frontend.load(model, example_inputs, inputs=inputs, dynamic=dynamic, state=state)
        compressed = compress(imported, request, host_builder(folder / "host")) if request else None
        subject = compressed.model if compressed else imported
        tuned = _tuned(device, threads, logs)
        how = ahead(subject, device, kind, name=name, weights=weights, tolerance=_tolerance(subject))
        built, facts = build_module(subject.mod, device, folder, dump_ir, tuned, how=how)
        session = None
        if elsewhere is None:
            session = Session(loadable(built), subject.signature, threads=threads, kind=device.kind)
        runner, notes = session, [*subject.notes, *built.notes]
        if subject.quantized is None:
            notes += _quantized_elsewhere(facts)
        if elsewhere is not None and check:
            note(f"{elsewhere}; a build for this machine is checked instead")
            notes.append("checked was a build of the same model for the compiling machine")
            runner = _host_session(subject, folder / "host")
        checked = None
        if check and runner is not None:
            with stage("check"):
                ran = "library" if session else "host build"
                checked, remarks = _check(subject, runner, ran, folder / "layer", seed)
                notes += remarks
        else:
            notes.append("not checked against the original (--no-check)")
        with stage("golden"):
            golden, contents = _golden(subject, runner, seed)
        if subject.quantized is not None:
            with stage("assess"):
                found = assess(subject, compressed, runner, facts["passes"])
            facts["quantization"], parts = describe_quantization(found)
            contents |= parts
            if device.kind != "cpu":
                notes.append(
                    f"{device.kind} computes quantized layers in float: integer kernels are for CPUs"
                )
                note(notes[-1])
            if report is not None:
                write_page(found, subject.origin, Path(report))
        contents |= library_parts(built)
        if with_runtime:
            with stage("runtime"):
                contents |= runtime_parts(built, device, folder)
        contents |= {
            f"sources/{name}": text.encode() for name, text in built.sources.items() if name not in contents
        }
        facts |= {"threads": threads, "alignment": ALIGNMENT, "check": checked, "golden": golden}
        facts["aot"] = aot_info(built, subject.mod)
        manifest = describe(subject.origin, subject.signature, device, notes=notes, **facts)
        compiled = CompiledModel(session, manifest, contents, folder, elsewhere or "")
        if output is not None:
            with stage("bundle"):
                compiled.save(output)
        return compiled


def quantize(
    model: Any,
    example_inputs: Any = None,
    *,
    scheme: str | Path | Recipe = "int8",
    calibrate: Any = None,
    transform: str | ImageTransform | None = None,
    max_drop: float | None = None,
    evaluate: Any = None,
    statistics: str | Path | None = None,
    output: str | Path | None = None,
    report: str | Path | None = None,
    check: bool = True,
    seed: int = 0,
    inputs: Sequence[str] | None = None,
    dynamic: Mapping[str, Any] | None = None,
    state: str = "refuse",
) -> frontend.Model:
    """Quantize a model, for any target: `compile` takes what is written to `output`, a ``.kq`` file.

    The arguments are those of `compile`; `scheme` is its ``quantize``. A build for this machine is checked.

    Raises:
        KilnError: one of its kinds, see `compiler.support.errors`; nothing is left half-written.
    """
    _refuse_early(output, None, None, here=True)
    if report is not None:
        check_writable(Path(report))
    request = make_request(
        scheme, calibrate, transform=transform, max_drop=max_drop, evaluate=evaluate,
        sensitivity=report is not None, seed=seed, check=check, statistics=statistics,
    )  # fmt: skip
    with private_folder() as folder:
        with stage("import"):
            imported = frontend.load(model, example_inputs, inputs=inputs, dynamic=dynamic, state=state)
        compressed = compress(imported, request, host_builder(folder / "host"))
        subject = compressed.model
        runner = None
        if check:
            runner = _host_session(subject, folder / "quantized")
            with stage("check"):
                check_library(subject, runner.run_flat, "host build")
        with stage("assess"):
            found = assess(subject, compressed, runner)
    subject = with_report(subject, found)
    if output is not None:
        write_model(subject, Path(output))
    if report is not None:
        write_page(found, subject.origin, Path(report))
    return subject


def _refuse_early(
    output: str | Path | None, threads: int | None, dump: str | Path | None, here: bool
) -> None:
    """Refuse now what would only fail after the work is done."""
    if threads is not None and threads < 1:
        raise UsageError(f"expected at least 1 thread, got {threads}")
    if output is not None:
        check_writable(Path(output))
    if dump is not None:
        make_folder(Path(dump))
    # Folding constants runs kernels: the pool must have its size before that.
    use_threads(choose_threads(threads if here else None))


def _refuse_alone(model: Any, quantize: Any, report: str | Path | None, **others: Any) -> None:
    """Refuse options of a quantization where there is none."""
    given = [name for name, value in others.items() if value is not None]
    if quantize is None and given:
        raise UsageError(
            f"{given[0].replace('_', '-')} is for quantized models: state quantize, such as int8"
        )
    if report is not None:
        if quantize is None and not str(model).endswith(".kq"):
            raise UsageError("there is a report about quantized models only: state quantize, such as int8")
        check_writable(Path(report))


def build_module(
    mod: Any,
    target: Target,
    folder: Path,
    dump: str | Path | None = None,
    tuned: Tuned | None = None,
    choose: Choose | None = None,
    how: Ahead | None = None,
) -> tuple[Built, dict[str, Any]]:
    """Build the library of `mod` in `folder`; return it and what the manifest says about its making.

    It is one for TVM's runtime, or with `how` ahead of time where that is possible. Where a graph can be made
    in several ways, `choose` decides; by default what was `tuned`.
    """
    choose = choose or (usual if tuned is None else tuned.choose)
    with stage("optimize"):
        target = laid_out(mod, target, choose)
        mod, passes = optimize(mod, target, dump=None if dump is None else Path(dump), choose=choose)
    with stage("schedule"):
        mod, kernels = schedule(mod, target, tuned)
        if tuned is not None and target.kind == "cpu":
            note(_origins(kernels))
    with stage("build"):
        check_room(make_folder(folder), _ROOM + 3 * constant_bytes(mod))
        how = settle(how, mod, target)
        if how is None:
            built = build(mod, target, folder)
        else:
            built = build_ahead(
                mod, target, folder, how.names, tolerance=how.tolerance, inside=how.inside, as_c=how.as_c
            )
    return built, {"passes": passes, "kernels": kernels}


def _tuned(target: Target, threads: int | None, logs: str | Path | None) -> Tuned:
    """Return what is known from tuning `target`; lines of logs that are none are said.

    Raises:
        UsageError: a log cannot be read.
    """
    if target.kind != "cpu":  # its kernels have no decisions yet
        if logs is not None:
            note(f"warning: kernels of {target.kind} cannot be tuned yet, '{logs}' is not read")
        return Tuned()
    tuned, logged = read_tuned(target, threads or target.cores, [] if logs is None else [Path(logs)])
    for problem in logged.problems:
        note(f"warning: {problem}")
    return tuned


def _origins(kernels: Sequence[KernelRecord]) -> str:
    """Say how many kernels were tuned."""
    counts = Counter(kernel.origin for kernel in kernels)
    return (
        f"{len(kernels)} kernels: {counts['tuned']} tuned, {counts['default']} with the default schedule of "
        f"their rule, {counts['generic']} generic"
    )


def _quantized_elsewhere(facts: dict[str, Any]) -> list[str]:
    """Tell what became of the layers of a model that somebody else quantized."""
    found = [f"quantized elsewhere: {text}" for record in facts["passes"] for text in record.notes]
    for text in found:
        note(text)
    return found


def constant_bytes(mod: Any) -> int:
    """Return the size of all constants: what a library weighs, and each object file on the way to it."""
    found: list[int] = []

    def visit(expr: Any) -> None:
        if isinstance(expr, tvm.ir.GenericConst) and isinstance(expr.value, tvm.runtime.Tensor):
            found.append(expr.value.numel() * max(1, expr.value.dtype.itemsize))

    for function in mod.functions.values():
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, visit)
    return sum(found)


def host_builder(folder: Path) -> Build:
    """Return what builds modules for this machine, each in a folder of its own, to run them."""
    numbers = itertools.count()

    def build_here(mod: Any, signature: Signature) -> Run:
        built, _ = build_module(mod, load_target(HOST), folder / str(next(numbers)))
        return Session(loadable(built), signature).run_flat

    return build_here


def _host_session(model: frontend.Model, folder: Path) -> Session:
    built, _ = build_module(model.mod, load_target(HOST), folder)
    return Session(loadable(built), model.signature)


def _check(
    model: frontend.Model, runner: Session, ran: str, folder: Path, seed: int
) -> tuple[CheckInfo | None, tuple[str, ...]]:
    """Compare with the original; on failure layers are compiled on their own to find the first wrong one."""
    if model.quantized is not None:
        return check_library(model, runner.run_flat, ran), ()

    def execute(mod: Any, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        built, _ = build_module(mod, load_target(HOST), folder)
        return run_library(built.library, arrays, runner.threads)

    tolerance = _tolerance(model)
    report = checking.check(model, runner.run_flat, execute=execute, seed=seed, tolerance=tolerance)
    note(str(report))
    if not report.outputs:
        return None, report.notes
    worst = report.worst
    info = CheckInfo(ran=ran, error=worst.relative_error, tolerance=tolerance, summary=str(worst))
    return info, report.notes


def _golden(model: frontend.Model, runner: Session | None, seed: int) -> tuple[Golden | None, Contents]:
    """Return golden data from the original, or from the library where the original cannot be run."""
    if model.quantized is not None:
        return quantized_golden(model, runner, seed)
    run = model.reference or (runner.run_flat if runner else None)
    if run is None:
        return None, {}
    arrays = list(model.examples) or fresh_inputs(model, seed)
    return store_golden(arrays, run(arrays), "reference" if model.reference else "library", _tolerance(model))


def _tolerance(model: frontend.Model) -> float:
    """Return how far from the original a library may be: further where both round values to bytes.

    A value between two bytes may become either, and each layer after it may magnify the difference.
    """
    return checking.QUANTIZED_TOLERANCE if is_quantized(model.mod) else checking.TOLERANCE
