"""The check of an import against PyTorch: the library must compute what the model computes.

Use (the driver's three lines)::

    report = check(model, run, execute=execute)      # raises CheckError beyond tolerance
    note(str(report))

where ``run(inputs)`` computes the compiled model and ``execute(mod, inputs)`` compiles and runs any
IRModule with a function ``main``; the latter is called only to find the layer that differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.frontend.location import Location, locate_node
from compiler.frontend.model import Arrays, Model
from compiler.frontend.random_inputs import fresh_inputs
from compiler.support.errors import CheckError

Run = Callable[[Arrays], Sequence[np.ndarray]]
Execute = Callable[[Any, Arrays], Sequence[np.ndarray]]

TOLERANCE = 1e-4
"""The greatest error allowed, as a part of an output's range, for floating-point outputs."""

QUANTIZED_TOLERANCE = 0.05
"""The same for models whose values are rounded to bytes on the way. Measured on ResNet-18 was 0.008: a
value between two bytes becomes the one or the other, and what follows magnifies that. Layers that compute
something else are off by a large part of the range."""


@dataclass(frozen=True)
class OutputCheck:
    """One output compared: the greatest absolute error, and that error over the output's range.

    `scale` is max - min of the expected values (their magnitude where they hardly differ from one
    another). `mismatch` tells of what no tolerance excuses: another shape or dtype, NaN or infinity in
    other places. Integers and bools must be equal; the levels of quantized outputs, bytes, have a range
    of 255.
    """

    name: str
    max_abs_error: float
    relative_error: float
    scale: float
    tolerance: float
    mismatch: str = ""

    @property
    def passed(self) -> bool:
        """Whether the output is equal within the tolerance."""
        return not self.mismatch and self.relative_error <= self.tolerance

    def __str__(self) -> str:
        if self.mismatch:
            return f"{self.name}: {self.mismatch}"
        if self.tolerance == 0:
            return f"{self.name}: {'equal' if self.passed else f'differs by up to {self.max_abs_error:g}'}"
        return f"{self.name}: max error {self.max_abs_error:.2g}, {self.relative_error:.2g} of its range"


@dataclass(frozen=True)
class CheckReport:
    """All outputs compared, over all inputs that were tried; `notes` tell what was not tried and why."""

    outputs: tuple[OutputCheck, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every output is equal within its tolerance."""
        return all(output.passed for output in self.outputs)

    @property
    def worst(self) -> OutputCheck:
        """The output that is furthest off."""
        return max(
            self.outputs, key=lambda output: (bool(output.mismatch), not output.passed, output.relative_error)
        )

    def __str__(self) -> str:
        return "; ".join([str(self.worst), *self.notes])


@dataclass(frozen=True)
class Difference:
    """The first place where the import departs from the model."""

    location: Location
    operator: str
    check: OutputCheck

    def __str__(self) -> str:
        return f"{self.operator} in {self.location} ({self.check})"


def check(
    model: Model, run: Run, *, execute: Execute | None = None, seed: int = 0, tolerance: float = TOLERANCE
) -> CheckReport:
    """Compare `run` with the original on fresh random inputs and on the user's examples.

    Args:
        model: what was imported; without a reference nothing can be compared, and the report says so.
        run: computes the compiled model on arrays in signature order.
        execute: compiles and runs an IRModule; with it, an error names the first layer that differs.
        seed: of the random inputs.
        tolerance: part of an output's range that may be lost (floating point only).

    Raises:
        CheckError: an output is beyond tolerance.
    """
    if model.reference is None:
        return CheckReport((), ("not checked: the original cannot be run",))
    outputs: list[OutputCheck] = []
    notes: list[str] = []
    names = [spec.name for spec in model.signature.outputs]
    for label, inputs in _trials(model, seed):
        try:
            expected = model.reference(inputs)
        except Exception as error:
            notes.append(f"not checked on {label}: the model itself fails there ({_line(error)})")
            continue
        report = compare(expected, run(inputs), names, tolerance=tolerance)
        if not report.passed:
            raise _failure(model, report, label, execute, inputs, tolerance)
        outputs += report.outputs
        notes += report.notes
    if not outputs:
        raise CheckError(
            f"{model.origin} could not be checked: {'; '.join(notes)}; give example inputs, or --no-check"
        )
    return CheckReport(_worst_by_name(outputs), tuple(dict.fromkeys(notes)))


def _trials(model: Model, seed: int) -> list[tuple[str, Arrays]]:
    trials: list[tuple[str, Arrays]] = [("fresh random inputs", fresh_inputs(model, seed))]
    if model.examples:
        trials.append(("the example inputs", model.examples))
    return trials


def compare(
    expected: Sequence[np.ndarray],
    actual: Sequence[np.ndarray],
    names: Sequence[str],
    *,
    tolerance: float = TOLERANCE,
) -> CheckReport:
    """Compare arrays pairwise; see `OutputCheck` for the measure."""
    if not len(expected) == len(actual) == len(names):
        text = f"expected {len(expected)} outputs, got {len(actual)}"
        return CheckReport((OutputCheck("outputs", float("inf"), float("inf"), 0.0, tolerance, text),))
    pairs = zip(names, expected, actual, strict=True)
    outputs = tuple(_compare_one(name, np.asarray(e), np.asarray(a), tolerance) for name, e, a in pairs)
    empty = [
        f"{name} has no finite value to compare"
        for name, e in zip(names, expected, strict=True)
        if np.asarray(e).size and not np.isfinite(np.asarray(e, dtype=np.float64)).any()
    ]
    return CheckReport(outputs, tuple(empty))


def _compare_one(name: str, expected: np.ndarray, actual: np.ndarray, tolerance: float) -> OutputCheck:
    # Bytes are levels of what is quantized: where a step of them may be lost, as in floats.
    levels = expected.dtype.kind in "iu" and expected.dtype.itemsize == 1 and tolerance >= 1 / 255
    exact = expected.dtype.kind not in "f" and not levels
    limit = 0.0 if exact else tolerance
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        text = f"expected {_kind(expected)}, got {_kind(actual)}"
        return OutputCheck(name, float("inf"), float("inf"), 0.0, limit, text)
    if exact and expected.dtype.itemsize == 8:
        # Beyond 2^53 float64 would take unequal integers for equal.
        difference = np.where(
            expected == actual, 0.0, np.abs(expected.astype(object) - actual.astype(object))
        )
        error = float(difference.max(initial=0)) if expected.size else 0.0
        return OutputCheck(name, error, error, 1.0, limit)
    wide, other = expected.astype(np.float64), actual.astype(np.float64)
    mismatch = _special(wide, other)
    finite = np.isfinite(wide) & np.isfinite(other)
    error = float(np.abs(wide[finite] - other[finite]).max(initial=0.0))
    scale = 255.0 if levels else 1.0 if exact else _scale(wide[np.isfinite(wide)])
    return OutputCheck(name, error, error / scale, scale, limit, mismatch)


def _kind(array: np.ndarray) -> str:
    return f"{'x'.join(map(str, array.shape)) or 'scalar'} {array.dtype}"


def _special(expected: np.ndarray, actual: np.ndarray) -> str:
    """Describe NaN and infinities that are not where they should be."""
    for name, wanted, got in (
        ("NaN", np.isnan(expected), np.isnan(actual)),
        ("inf", np.isposinf(expected), np.isposinf(actual)),
        ("-inf", np.isneginf(expected), np.isneginf(actual)),
    ):
        if not np.array_equal(wanted, got):
            counts = f"expected {int(wanted.sum())} {name} among {wanted.size} values"
            return f"{counts}, got {int(got.sum())} or in other places"
    return ""


def _scale(values: np.ndarray) -> float:
    """Return max - min, or the magnitude where that is below 1% of it (one value, or nearly constant)."""
    if not values.size:
        return 1.0
    magnitude = float(np.abs(values).max())
    extent = float(values.max() - values.min())
    return (extent if extent >= 0.01 * magnitude else magnitude) or 1.0


def locate(
    model: Model, execute: Execute, inputs: Arrays, *, tolerance: float = TOLERANCE
) -> Difference | None:
    """Find the first layer whose output differs from PyTorch's on `inputs`.

    The graph is imported again so that it gives the last output of every nn.Module, then, within the
    first that differs, of every operator. Returns None where no layer alone is beyond tolerance, or
    where the model was not imported from PyTorch.
    """
    if model.program is None:
        return None
    nodes = [node for node in model.program.program.graph.nodes if _is_comparable(node)]
    boundaries = _module_ends(nodes)
    first = _first_difference(model, execute, inputs, boundaries, tolerance)
    if first is None:
        return None
    node, _ = first
    end = nodes.index(node)
    before = [nodes.index(boundary) for boundary in boundaries if nodes.index(boundary) < end]
    inside = nodes[max(before, default=-1) + 1 : end + 1]
    node, output = _first_difference(model, execute, inputs, inside, tolerance) or first
    return Difference(locate_node(node), str(node.target), output)


def _is_comparable(node: Any) -> bool:
    val = node.meta.get("val")
    return node.op == "call_function" and hasattr(val, "shape") and hasattr(val, "dtype")


def _module_ends(nodes: Sequence[Any]) -> list[Any]:
    """Return the last node of every nn.Module, in graph order."""
    last: dict[str, Any] = {}
    for node in nodes:
        for path, _ in (node.meta.get("nn_module_stack") or {"": ("", "")}).values():
            last[path] = node
    chosen = set(last.values())
    return [node for node in nodes if node in chosen]


def _first_difference(
    model: Model, execute: Execute, inputs: Arrays, nodes: Sequence[Any], tolerance: float
) -> tuple[Any, OutputCheck] | None:
    expected = model.program.interpret(inputs, nodes)
    actual = list(execute(model.program.debug(nodes, model.origin), inputs))
    for node, e, a in zip(nodes, expected, actual, strict=True):
        output = _compare_one(node.name, np.asarray(e), np.asarray(a), tolerance)
        if not output.passed:
            return node, output
    return None


def _failure(
    model: Model, report: CheckReport, label: str, execute: Execute | None, inputs: Arrays, tolerance: float
) -> CheckError:
    failed = [str(output) for output in report.outputs if not output.passed]
    text = f"{model.origin} does not compute what the original computes on {label}: {'; '.join(failed)}"
    if execute is not None:
        difference = locate(model, execute, inputs, tolerance=tolerance)
        if difference is not None:
            text += f"; the first layer that differs: {difference}"
        elif model.program is not None:
            text += f"; every imported layer agrees, so {_culprit(model, inputs, tolerance)}"
    return CheckError(f"{text}; please report it (--no-check compiles regardless)")


def _culprit(model: Model, inputs: Arrays, tolerance: float) -> str:
    """Tell whether torch.export's graph is already wrong, or what follows the import."""
    assert model.reference is not None
    slots = model.program.interface.outputs
    given = model.program.interpret(inputs, [slot.node for slot in slots])
    report = compare(model.reference(inputs), given, [slot.name for slot in slots], tolerance=tolerance)
    if report.passed:
        return "a later pass or the code generation is wrong"
    return "torch.export's own graph differs from the module (is forward random, or does it read globals?)"


def _worst_by_name(outputs: Sequence[OutputCheck]) -> tuple[OutputCheck, ...]:
    worst: dict[str, OutputCheck] = {}
    for output in outputs:
        if output.name not in worst or output.relative_error > worst[output.name].relative_error:
            worst[output.name] = output
    return tuple(worst.values())


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
