"""The driver's second page: what comes between import and optimize where a model is quantized.

observe     the model in float, built such that it gives what is inside; checked against the original
calibrate   statistics of that on the data
...         see `compiler.compress.quantize`
assess      the quantized library beside the model in float
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compiler import frontend
from compiler.bundle import CheckInfo, Contents, Golden, QuantizationInfo, store_golden
from compiler.compress.agreement import compare_with_quantized
from compiler.compress.balance import balanced, sites_of
from compiler.compress.calibrate import Run
from compiler.compress.data import CalibrationData, open_data, random_data
from compiler.compress.equalize import equalize
from compiler.compress.images import ImageTransform
from compiler.compress.moments import gather
from compiler.compress.quantize import Build, Goal, Material, quantize
from compiler.compress.quantizer import Quantizer
from compiler.compress.recipe import Recipe, as_recipe
from compiler.compress.report import Report, ScoreReport
from compiler.compress.score import compared
from compiler.compress.summary import output_reports
from compiler.deploy import Session, relative_error
from compiler.frontend import check as checking
from compiler.frontend.factory import find
from compiler.frontend.random_inputs import fresh_inputs
from compiler.passes import PassRecord, canonicalize
from compiler.support.errors import UsageError
from compiler.support.files import check_writable
from compiler.support.progress import note, stage

_RANDOM = 8
"""Batches of random numbers, for want of data."""

_ASSESSED = 128
"""The most batches on which a library is compared with the model in float."""

_QUANTUM = 1 / 255


@dataclass(frozen=True)
class Request:
    """What the user asked for: see `compiler.driver.compile`."""

    recipe: Recipe
    calibrate: Any
    transform: ImageTransform | None
    goal: Goal
    seed: int
    check: bool
    statistics: Path | None = None


def make_request(
    recipe: str | Path | Recipe,
    calibrate: Any = None,
    *,
    transform: str | ImageTransform | None = None,
    max_drop: float | None = None,
    evaluate: Any = None,
    sensitivity: bool = False,
    seed: int = 0,
    check: bool = True,
    statistics: str | Path | None = None,
) -> Request:
    """Return what the user asks for; wrong names are refused here, before any work.

    Raises:
        UsageError: no such scheme, recipe or function, or options that do not fit together.
    """
    chosen = as_recipe(recipe)
    chosen.check_scheme()
    if chosen.rounding == "adaptive" and calibrate is None:
        raise UsageError("adaptive rounding needs data to adapt to: give some with --calibrate")
    if transform is not None and calibrate is None:
        raise UsageError("an image transform needs calibration data: give a folder of images")
    kept = None if statistics is None else Path(statistics)
    if kept is not None and not chosen.scheme.needs_data:
        raise UsageError(f"the scheme '{chosen.scheme.name}' takes nothing from data: it has no statistics")
    if kept is not None and not kept.exists():
        if calibrate is None:
            raise UsageError(f"there are no statistics in '{kept}' yet: give the data to gather them of")
        check_writable(kept)
    if max_drop is not None and not max_drop >= 0:
        raise UsageError(f"expected a drop of at least 0, got {max_drop}")
    if isinstance(transform, str):
        transform = ImageTransform.parse(transform)
    goal = _goal(max_drop, evaluate, sensitivity=sensitivity)
    return Request(chosen, calibrate, transform, goal, seed, check, kept)


def _goal(max_drop: float | None, evaluate: Any, *, sensitivity: bool) -> Goal:
    if evaluate is None:
        return Goal(max_drop, sensitivity=sensitivity)
    if isinstance(evaluate, str):
        return Goal(max_drop, find(evaluate), f"score of '{evaluate}'", sensitivity)
    if not callable(evaluate):
        raise UsageError(f"expected a function or module:function to evaluate with, got {evaluate!r}")
    return Goal(max_drop, evaluate, f"score of {getattr(evaluate, '__name__', 'evaluate')}", sensitivity)


@dataclass(frozen=True, eq=False)
class Compressed:
    """A quantized model, and what its library is compared with."""

    model: frontend.Model
    exact: Run
    data: CalibrationData
    goal: Goal

    def assess(self, run: Run) -> Report:
        """Return the report, with how the library that `run` runs compares with the model in float."""
        assert self.model.quantized is not None
        report = Report.from_plain(self.model.quantized.report)
        names = [spec.name for spec in self.model.signature.outputs]
        fidelity = compared(self.exact, run, self.data, names, _ASSESSED)
        report = replace(report, outputs=output_reports(fidelity))
        return replace(report, score=self._score(report.score, run, names))

    def _score(self, found: ScoreReport | None, run: Run, names: Sequence[str]) -> ScoreReport | None:
        """Return the score of the library: what was found before was that of a simulation."""
        if found is None and self.goal.evaluate is None:
            return None
        quantized = self.goal.score(self.exact, run, self.data, names)
        if found is not None:
            return replace(found, quantized=quantized)
        in_float = self.goal.score(self.exact, self.exact, self.data, names)
        return ScoreReport(self.goal.metric, in_float, quantized)


def compress(imported: frontend.Model, request: Request, build: Build) -> Compressed:
    """Quantize `imported`; on the way the model in float is checked against the original.

    Raises:
        KilnError: one of its kinds.
    """
    if imported.quantized is not None:
        raise UsageError(f"{imported.origin} is quantized already; compile it as it is")
    with stage("canonical"):
        model = replace(imported, mod=canonicalize(imported.mod))
        if request.recipe.equalize:
            model = equalize(model)
    quantizer = Quantizer(model, request.recipe)
    data = _data(model, request)
    if sites := sites_of(quantizer):
        with stage("balance"):
            quantizer = balanced(quantizer, sites, data, build)
    if request.recipe.rounding == "adaptive":
        with stage("round"):
            quantizer.round_by(gather(quantizer, data, build))
    with stage("observe"):
        exact = build(quantizer.observing(), model.signature)
        if request.check:
            outputs = len(model.signature.outputs)
            note(str(checking.check(imported, lambda arrays: exact(arrays)[:outputs], seed=request.seed)))
    material = Material(quantizer, exact, data, build, request.statistics)
    return Compressed(quantize(material, request.goal, check=request.check), exact, data, request.goal)


def _data(model: frontend.Model, request: Request) -> CalibrationData:
    limit, signature = request.recipe.samples, model.signature
    if request.calibrate is not None:
        return open_data(
            request.calibrate, signature, transform=request.transform, limit=limit, examples=model.examples
        )
    needed = request.recipe.scheme.needs_data and request.statistics is None
    if needed:
        note("warning: no calibration data (--calibrate): ranges are taken from random numbers")
    return random_data(
        signature,
        min(limit or _RANDOM, _RANDOM),
        request.seed,
        ranges=model.ranges,
        sizes=model.sizes,
        examples=model.examples,
        needed=needed,
    )


def check_library(model: frontend.Model, run: Run, ran: str) -> CheckInfo | None:
    """Compare a library with the quantized model that it was made of.

    Raises:
        CheckError: it computes something else.
    """
    assert model.quantized is not None
    found = compare_with_quantized(model.quantized, run, [spec.name for spec in model.signature.outputs])
    if not found:
        return None
    worst = max(found, key=lambda each: each.error / each.tolerance)
    note(str(worst))
    return CheckInfo(ran=ran, error=worst.error, tolerance=worst.tolerance, summary=str(worst))


def quantized_golden(
    model: frontend.Model, runner: Session | None, seed: int
) -> tuple[Golden | None, Contents]:
    """Return golden data of a library that computes in integers.

    Another machine sums floats in another order, and where a value lies between two codes takes the other
    one: a device passes within one of 255 parts of an output's range, or twice what that already makes here.
    """
    if runner is None:
        return None, {}
    assert model.quantized is not None
    given = model.quantized.inputs
    arrays = list(given[0] if given else model.examples or fresh_inputs(model, seed))
    outputs = runner.run_flat(arrays)
    expected = model.quantized.rounded[0] if given else ()
    errors = [relative_error(got, want) for got, want in zip(outputs, expected, strict=False)]
    off = max((error for error in errors if error <= 1), default=0.0)
    return store_golden(arrays, outputs, "library", max(_QUANTUM, 2 * off))


def assess(
    model: frontend.Model,
    compressed: Compressed | None,
    runner: Session | None,
    passes: Sequence[PassRecord] = (),
) -> Report:
    """Return the report of a quantized model, with how its library compares with float where that can be.

    `passes` are what made the library; without them it is not known how a target stores the weights.
    """
    assert model.quantized is not None
    if compressed is not None and runner is not None:
        report = compressed.assess(runner.run_flat)
    else:
        report = Report.from_plain(model.quantized.report)
    widened = [
        (name.removeprefix("relax.").removeprefix("nn."), "x".join(map(str, shape)))
        for record in passes
        for name, shape in record.widened
    ]
    report = report.with_widened(widened)
    for line in report.lines():
        note(line)
    return report


def with_report(model: frontend.Model, report: Report) -> frontend.Model:
    """Return `model` carrying `report`."""
    assert model.quantized is not None
    return replace(model, quantized=replace(model.quantized, report=report.to_plain()))


def describe_quantization(report: Report) -> tuple[QuantizationInfo, Contents]:
    """Return what a manifest says about a quantization, and the part with the whole report."""
    info = QuantizationInfo(
        scheme=report.scheme,
        method=report.method,
        data=report.data,
        sha256=report.sha256,
        batches=report.batches,
        is_random=report.is_random,
        layers=len(report.layers),
        quantized=report.quantized,
        summary=tuple(report.lines()),
    )
    return info, {"quantization.json": json.dumps(report.to_plain(), indent=1).encode()}
