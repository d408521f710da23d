"""One number for how good a model is: the user's own, or its agreement with the model in float."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from compiler.compress.calibrate import Run
from compiler.compress.data import CalibrationData
from compiler.compress.fidelity import Fidelity
from compiler.support.errors import InputError, KilnError, UsageError

Evaluate = Callable[[Callable[[Sequence[np.ndarray]], list[np.ndarray]]], Any]
"""Takes a function from a list of inputs to a list of outputs, and gives a score; higher is better."""


def evaluated(evaluate: Evaluate, run: Run, origin: str) -> float:
    """Return the score that the user's function gives for what `run` runs.

    Raises:
        InputError: it failed, or gave something that is not a number.
    """
    try:
        score = evaluate(lambda arrays: list(run(list(arrays))))
    except KilnError:
        raise
    except (Exception, SystemExit) as error:
        from compiler.frontend.factory import one_line

        raise InputError(f"the evaluation {origin} failed: {one_line(error)}") from error
    try:
        number = float(score)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"expected a score, a number, from the evaluation {origin}, got {type(score).__name__}"
        ) from error
    if not math.isfinite(number):
        raise InputError(f"expected a finite score from the evaluation {origin}, got {number}")
    return number


def agreement(exact: Run, run: Run, data: CalibrationData, names: Sequence[str]) -> float:
    """Return the percentage of samples with the same top-1, or 100 times the mean cosine without classes.

    Raises:
        UsageError: no output is of floats.
    """
    fidelity = compared(exact, run, data, names)
    scores = [100 * (each.cosine if each.top1 is None else each.top1) for each in fidelity.outputs]
    if not scores:
        raise UsageError("no output of the model is of floats: state what is good with --evaluate")
    return min(scores)


def compared(
    exact: Run, run: Run, data: CalibrationData, names: Sequence[str], most: int | None = None
) -> Fidelity:
    """Run both models on all of `data`, or its first batches, and compare what they give."""
    fidelity = Fidelity(names)
    for batch in islice(data, most):
        arrays = list(batch.values())
        fidelity.add(exact(arrays)[: len(names)], run(arrays)[: len(names)])
    return fidelity
