"""From what was done to a model to a report of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from compiler.compress.fidelity import Fidelity, OutputFidelity, decibels
from compiler.compress.numerics import LinearGrid
from compiler.compress.observers import Observer
from compiler.compress.plan import Layer
from compiler.compress.quantizer import Choice, Quantizer
from compiler.compress.report import FloatReport, LayerReport, OutputReport, RangeReport, Report
from compiler.compress.scheme import Linear, Scheme
from compiler.compress.sensitivity import Sensitivity
from compiler.ir.constants import array_of

_BINS = 64


def summarize(
    quantizer: Quantizer, choice: Choice, reasons: Mapping[str, str], lost: Mapping[str, Sensitivity]
) -> Report:
    """Return the report of quantizing as `choice` says.

    `reasons` are those of layers that stay in float beyond the recipe, `lost` what layers lose alone.
    """
    recipe, data = quantizer.recipe, quantizer.statistics.data
    every = {**quantizer.reasons, **reasons}
    layers = tuple(
        _layer(quantizer, layer, every.get(layer.name, ""), lost.get(layer.name))
        for layer in quantizer.structure.layers
    )
    ranges = _ranges(quantizer, choice)
    kept = {layer.name for layer in layers if layer.reason}
    floats = tuple(
        FloatReport(each.name, each.operator, each.reason)
        for each in choice.plan.floats
        if each.name not in kept
    )
    return Report(
        scheme=recipe.scheme.name,
        description=str(recipe.scheme),
        method=f"{recipe.method}, adaptive rounding" if recipe.rounding == "adaptive" else str(recipe.method),
        data=data.origin,
        sha256=data.sha256,
        batches=data.batches,
        is_random=data.is_random,
        layers=layers,
        ranges=ranges,
        floats=floats,
        warnings=(*data.notes, *_constants(ranges)),
    )


def _layer(quantizer: Quantizer, layer: Layer, reason: str, lost: Sensitivity | None) -> LayerReport:
    call = quantizer.structure.graph.definition(layer.var)
    values = array_of(call.args[1])
    assert values is not None
    noise = None
    if layer.var in quantizer.weights:
        wide = values.astype(np.float64)
        error = quantizer.weights[layer.var].values - wide
        noise = decibels(float((wide**2).sum()), float((error**2).sum()))
    return LayerReport(
        name=layer.name,
        operator=str(call.op.name).removeprefix("relax.").removeprefix("nn."),
        weights="x".join(map(str, values.shape)),
        reason=reason,
        weights_sqnr=noise,
        own_sqnr=None if lost is None else lost.own,
        output_sqnr=None if lost is None else lost.output,
        bits=32 if reason else quantizer.scheme.weight_bits,
        stored=32 if reason else _stored_bits(quantizer.scheme),
    )


def _stored_bits(scheme: Scheme) -> int:
    """Return the bits that a weight takes in a library: integer kernels multiply bytes, others read codes."""
    if isinstance(scheme.activations, Linear):
        return 8
    return next(bits for bits in (1, 2, 4, 8, 16) if bits >= scheme.weight_bits)


def _ranges(quantizer: Quantizer, choice: Choice) -> tuple[RangeReport, ...]:
    shared = Counter(choice.plan.bytes.values())
    names = quantizer.structure.names
    return tuple(
        _range(names[var], quantizer.observer(var), grid, shared[stands])
        for stands, values in choice.plan.observed.items()
        for var in values
        if isinstance(grid := choice.grids[stands], LinearGrid)
    )


def _range(name: str, observer: Observer, grid: LinearGrid, shared: int) -> RangeReport:
    least, most = (float(limit) for limit in grid.limits)
    return RangeReport(
        name=name,
        low=observer.low,
        high=observer.high,
        least=least,
        most=most,
        scale=float(grid.scale),
        zero_point=int(grid.zero_point),
        shared=shared,
        bins=_bins(observer),
        notes=grid.notes,
    )


def _bins(observer: Observer) -> tuple[int, ...]:
    """Return the histogram in equal parts of the range that was seen."""
    if observer.high <= observer.low:
        return (observer.histogram.total,)
    bins = observer.histogram.bins()
    width = (observer.high - observer.low) / _BINS
    places = np.clip((bins.left + bins.width / 2 - observer.low) / width, 0, _BINS - 1).astype(np.int64)
    return tuple(int(count) for count in np.bincount(places, bins.counts, minlength=_BINS))


def _constants(ranges: tuple[RangeReport, ...]) -> list[str]:
    """Say which values never changed: dead channels, or data that does not exercise the model."""
    names = [each.name for each in ranges if each.low == each.high]
    if not names:
        return []
    listed = ", ".join(f"'{name}'" for name in names[:4]) + (", ..." if len(names) > 4 else "")
    which = f"{len(names)} of {len(ranges)} values that become bytes are"
    return [f"{which} constant on the calibration data ({listed}): does the data show what the model is for?"]


def output_reports(fidelity: Fidelity) -> tuple[OutputReport, ...]:
    """Return the outputs that a `Fidelity` compared."""
    return tuple(_output(each) for each in fidelity.outputs)


def _output(each: OutputFidelity) -> OutputReport:
    sqnr = each.sqnr if np.isfinite(each.sqnr) else None
    return OutputReport(each.name, sqnr, each.cosine, each.top1)
