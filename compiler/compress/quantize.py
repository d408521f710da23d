"""The stage: a model in float, data and a recipe become a quantized model with a report.

observe     the driver compiles the model in float such that it also gives what is inside
calibrate   that runs on the data; statistics of all values are kept
measure     each layer is quantized alone, if someone wants to know which are sensitive
search      the most sensitive stay in float until the score drops by no more than is allowed
insert      what was chosen is written into the graph
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import tvm

from compiler.compress.calibrate import Run
from compiler.compress.data import CalibrationData
from compiler.compress.quantizer import Choice, Quantizer
from compiler.compress.report import Report, ScoreReport
from compiler.compress.saved import saved_or_observed
from compiler.compress.score import Evaluate, agreement, evaluated
from compiler.compress.search import keep_fewest
from compiler.compress.sensitivity import Sensitivity, measure, measured_values
from compiler.compress.simulate import Simulation
from compiler.compress.summary import summarize
from compiler.frontend.model import Model, Quantized
from compiler.support.errors import InputError
from compiler.support.progress import stage
from compiler.support.signature import Signature

Build = Callable[[tvm.IRModule, Signature], Run]
"""Compiles a module in float for this machine, and returns what runs it on arrays in signature order."""

PROBES = 8
"""How many batches sensitivity is measured on, and are kept to check a library with."""


@dataclass(frozen=True)
class Goal:
    """What a quantized model should reach, and what to find out about it.

    Attributes:
        max_drop: how much lower its score may be than in float; None allows any drop.
        evaluate: gives the score; None takes the agreement with the model in float.
        metric: what to call the score.
        sensitivity: measure each layer for the report, even where no goal needs it.
    """

    max_drop: float | None = None
    evaluate: Evaluate | None = None
    metric: str = "agreement with float, %"
    sensitivity: bool = False

    def score(self, exact: Run, run: Run, data: CalibrationData, names: Sequence[str]) -> float:
        """Return the score of what `run` runs, where `exact` runs the model in float."""
        if self.evaluate is None:
            return agreement(exact, run, data, names)
        return evaluated(self.evaluate, run, self.metric)


@dataclass(frozen=True, eq=False)
class Material:
    """What a quantization works with: `exact` runs `Quantizer.observing`, built in float.

    `statistics` is the file that what is observed is kept in, see `compiler.compress.saved`.
    """

    quantizer: Quantizer
    exact: Run
    data: CalibrationData
    build: Build
    statistics: Path | None = None

    @property
    def names(self) -> list[str]:
        """The outputs of the model."""
        return [spec.name for spec in self.quantizer.model.signature.outputs]

    def probes(self) -> list[list[np.ndarray]]:
        """Return the first batches of the data."""
        return [list(batch.values()) for batch in islice(self.data, PROBES)]


def quantize(material: Material, goal: Goal, *, check: bool = True) -> Model:
    """Return the quantized model; with `check`, also what a library of it should compute.

    Raises:
        InputError: the data cannot be used, or the goal not be reached.
    """
    quantizer = material.quantizer
    with stage("calibrate"):
        outputs = len(material.names)
        quantizer.use(
            saved_or_observed(
                material.statistics,
                quantizer.model.mod,
                lambda arrays: material.exact(arrays)[outputs:],
                material.data,
                quantizer.observers(),
            )
        )
    lost: dict[str, Sensitivity] = {}
    reasons: dict[str, str] = {}
    score = None
    if goal.sensitivity or goal.max_drop is not None:
        with stage("measure"):
            simulation = quantizer.simulation(measured_values(quantizer))
            simulate = material.build(simulation.mod, simulation.signature)
            lost = measure(quantizer, simulation, simulate, material.probes())
        if goal.max_drop is not None:
            with stage("search"):
                score = _search(material, goal, simulation, simulate, lost)
                reasons = dict.fromkeys(score.kept, f"for a drop of at most {goal.max_drop:g}")
    choice = quantizer.choose(reasons)
    report = replace(summarize(quantizer, choice, reasons, lost), score=score)
    kept = _kept(material, choice, report) if check else Quantized(report.to_plain())
    mod = quantizer.quantized(choice)
    return replace(quantizer.model, mod=mod, reference=None, program=None, quantized=kept)


def _search(
    material: Material, goal: Goal, simulation: Simulation, simulate: Run, lost: dict[str, Sensitivity]
) -> ScoreReport:
    """Find the layers that have to stay in float.

    Raises:
        InputError: no quantization is good enough.
    """
    assert goal.max_drop is not None
    quantizer, outputs = material.quantizer, len(material.names)
    in_float = goal.score(material.exact, material.exact, material.data, material.names)

    def score(kept: Sequence[str]) -> float:
        choice = quantizer.choose(dict.fromkeys(kept, ""))
        switches = simulation.switches(choice.plan, choice.grids).arrays
        return goal.score(
            material.exact,
            lambda arrays: simulate([*arrays, *switches])[:outputs],
            material.data,
            material.names,
        )

    order = sorted(lost, key=lambda name: lost[name].output)
    found = keep_fewest(order, score, in_float - goal.max_drop)
    if not found.met:
        kept = f"with {', '.join(found.kept)} in float" if found.kept else "with all layers quantized"
        raise InputError(
            f"no quantization to {quantizer.recipe.scheme.name} loses at most {goal.max_drop:g} of the "
            f"{goal.metric}: in float it is {in_float:.4g}, and the best found is {found.score:.4g}, {kept}; "
            "allow a greater drop, or choose another scheme or calibration method"
        )
    return ScoreReport(goal.metric, in_float, found.score, goal.max_drop, found.kept)


def _kept(material: Material, choice: Choice, report: Report) -> Quantized:
    """Return what a library has to compute, for the first batches of the data."""
    quantizer, probes, count = material.quantizer, material.probes(), len(material.names)
    with stage("reference"):
        rounded = material.build(quantizer.rounded(choice), quantizer.model.signature)
        return Quantized(
            report.to_plain(),
            inputs=tuple(tuple(probe) for probe in probes),
            exact=tuple(tuple(material.exact(probe)[:count]) for probe in probes),
            rounded=tuple(tuple(rounded(probe)) for probe in probes),
        )
