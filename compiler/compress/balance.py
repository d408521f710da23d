"""Balancing: what a few channels of activations have too much of is moved to where it does no harm.

    norm(x) w           =  (norm(x) / s) (s w)              s folded into the norm's own scale and shift
    f(x u + b) w        =  (f(x u' + b') / n) w'            channels repeated n times, each a part of the sum

Transformers have channels whose values are tens of times those of the others, always the same ones; with one
scale for a whole tensor the others lose their codes. Behind a norm, such channels are divided and the weights
that read them multiplied (Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for
Large Language Models", ICML 2023, with s = max |x|^a / max |w|^(1 - a)). What else reads the norm, such as a
residual sum, multiplies by s again. Behind an activation there is no scale to fold into, and weights that
balance a value a hundred times as large would lose as much: there the few channels are repeated, and each
copy carries a part (Zhao et al., "Improving Neural Network Quantization without Retraining using Outlier
Channel Splitting", ICML 2019). Both compute the same in float.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compiler.compress.calibrate import Run, calibrate
from compiler.compress.data import CalibrationData
from compiler.compress.observe import with_outputs
from compiler.compress.observers import Channels, Observer
from compiler.compress.plan import Layer, Structure
from compiler.compress.quantizer import Quantizer
from compiler.compress.scheme import Linear, PerTensor, Scheme
from compiler.compress.sites import Site, between, find_sites
from compiler.frontend.model import Model
from compiler.ir.constants import array_of, constant
from compiler.ir.graph import Graph
from compiler.ir.rewriter import Rewriter, is_call
from compiler.support.progress import note
from compiler.support.signature import Signature

_ALPHAS = tuple(step / 20 for step in range(4, 20))
"""What `auto` tries: how much of the ranges of activations weights should take over."""

_NARROW = 256
"""Channels of a layer below which copies of some would cost more than a few percent of its time."""

_COPIES = 48
"""One copy for each so many channels, in multiples of `_STEP`."""

_STEP = 16
"""Channels that kernels compute at once."""

_WORTH = 1.5
"""How many times narrower a range has to become for copies to be worth their time: 3.5 dB."""

_LEAST = 1e-5
"""Channels that never leave zero count as reaching so far, as in the authors' code."""


def sites_of(quantizer: Quantizer) -> list[Site]:
    """Return what the recipe wants balanced; nothing if activations get no scales from data."""
    scheme, recipe = quantizer.scheme, quantizer.recipe
    linear = isinstance(scheme.activations, Linear) and isinstance(scheme.weights, Linear)
    if recipe.balance == "off" or not scheme.needs_data or not linear:
        return []
    return find_sites(quantizer.structure, quantizer.most.layers)


def balanced(
    quantizer: Quantizer,
    sites: Sequence[Site],
    data: CalibrationData,
    build: Callable[[tvm.IRModule, Signature], Run],
) -> Quantizer:
    """Return a quantizer of the same model with balanced `sites`, after a run of it in float on `data`."""
    model, structure, recipe = quantizer.model, quantizer.structure, quantizer.recipe
    values = [site.var for site in sites]
    run, own = build(with_outputs(model.mod, values), model.signature), len(model.signature.outputs)
    observers = {structure.names[var]: Observer(int(var.ty.ndim) - 1) for var in values}
    seen = calibrate(lambda arrays: run(arrays)[own:], data, observers, remark=False)
    statistics = {}
    for var in values:
        channels = seen[structure.names[var]].channels
        assert channels is not None
        statistics[var] = channels
    alpha = recipe.balance if isinstance(recipe.balance, float) else None
    made = balance(model, structure, sites, statistics, quantizer.scheme, alpha)
    note(f"channels of {len(sites)} values are balanced" if made is not model else "no channels are wide")
    # The names are as they were: what was added is part of groups that were there.
    return Quantizer(made, recipe, {structure.names[var] for var in values})


def balance(
    model: Model,
    structure: Structure,
    sites: Sequence[Site],
    statistics: Mapping[Any, Channels],
    scheme: Scheme,
    alpha: float | None = None,
) -> Model:
    """Return `model` with balanced channels.

    Args:
        model: the model whose graph `structure` describes.
        structure: of it.
        sites: some of `find_sites`.
        statistics: of the channels of each site, by its value.
        scheme: what will be rounded to; affine or symmetric activations from data.
        alpha: from 0 to 1, how much of the ranges of activations weights take over behind norms; None takes
            for each site what promises the least error, and leaves alone what is best as it is.
    """
    scales: dict[Any, np.ndarray] = {}
    copies: dict[Any, np.ndarray] = {}
    for site in sites:
        weights = [_weights(structure.graph, layer) for layer in site.layers]
        channels = statistics[site.var]
        if site.source is not None:
            counts = _copies(channels)
            if counts is not None:
                copies[site.var] = counts
        else:
            scale = _scale(channels, weights, scheme, alpha)
            if scale is not None:
                scales[site.var] = scale
    if not scales and not copies:
        return model
    return replace(model, mod=_Balance(structure, sites, scales, copies).run(model.mod))


def _weights(graph: Graph, layer: Layer) -> np.ndarray:
    values = array_of(graph.definition(layer.var).args[1])
    assert values is not None
    return values.astype(np.float64)


def _reach(channels: Channels) -> np.ndarray:
    """Return how far each channel gets from zero."""
    return np.maximum(np.abs(channels.low), np.abs(channels.high)).astype(np.float64)


def _scale(
    channels: Channels, weights: Sequence[np.ndarray], scheme: Scheme, alpha: float | None
) -> np.ndarray | None:
    """Return what each channel is divided by, None if it is best left as it is."""
    whole = np.concatenate(weights, axis=1)
    reach, rows = _reach(channels), np.abs(whole).max(1)
    usable = (reach > _LEAST) & (rows > 0)
    reach, rows = np.where(usable, reach, 1), np.where(usable, rows, 1)

    def scale(part: float) -> np.ndarray:
        return np.where(usable, reach**part / rows ** (1 - part), 1)

    if alpha is not None:
        return scale(alpha)
    as_it_is = np.ones(reach.shape)
    tried = [as_it_is, *map(scale, _ALPHAS)]
    best = min(tried, key=lambda each: expected_error(channels, whole, each, scheme))
    return None if best is as_it_is else best


def expected_error(channels: Channels, weights: np.ndarray, scale: np.ndarray, scheme: Scheme) -> float:
    """Return the mean square of the error of ``round(x / s) round(s w)``, summed over all outputs.

    Rounding to steps of d adds an error of d^2 / 12, which is independent of all else (Widrow et al.,
    "Statistical Theory of Quantization", 1996).

    Args:
        channels: what is known of x.
        weights: w, inputs times outputs.
        scale: s, one for each input.
        scheme: tells how many steps there are.
    """
    activations, linear = scheme.activations, scheme.weights
    assert isinstance(activations, Linear), "no others are balanced"
    assert isinstance(linear, Linear), "no others are balanced"
    low, high = min(0.0, float((channels.low / scale).min())), max(0.0, float((channels.high / scale).max()))
    if activations.symmetric:
        low, high = -max(-low, high), max(-low, high)
    step = (high - low) / (activations.highest - activations.lowest)
    scaled = weights * scale[:, None]
    shared = None if isinstance(linear.granularity, PerTensor) else 0
    steps = np.broadcast_to(np.abs(scaled).max(axis=shared) / linear.highest, scaled.shape[1])
    power = (channels.power / scale**2).sum()
    return float(step**2 * (scaled**2).sum() + (steps**2).sum() * power) / 12


def _copies(channels: Channels) -> np.ndarray | None:
    """Return how often each channel should be there, None if once is enough."""
    reach = _reach(channels)
    if reach.size < _NARROW or not reach.max():
        return None
    counts = np.ones(reach.size, np.int64)
    for _ in range(max(_STEP, reach.size // _COPIES // _STEP * _STEP)):
        counts[np.argmax(reach / counts)] += 1
    return counts if reach.max() >= _WORTH * (reach / counts).max() else None


@dataclass
class _Change:
    """What becomes of a layer's weights: rows are multiplied, then repeated; columns are repeated."""

    rows: np.ndarray | None = None
    inputs: np.ndarray | None = None
    outputs: np.ndarray | None = None


class _Balance(Rewriter):
    name = "Balance"

    def __init__(
        self,
        structure: Structure,
        sites: Sequence[Site],
        scales: Mapping[Any, np.ndarray],
        copies: Mapping[Any, np.ndarray],
    ) -> None:
        super().__init__()
        self._scales = scales
        self._changes: dict[Any, _Change] = {}
        self._others: dict[Any, list[Any]] = {}
        self._members: dict[Any, np.ndarray] = {}
        self._ends: dict[Any, np.ndarray] = {}
        self._moved: dict[Any, int] = {}
        for site in sites:
            if site.var in scales:
                self._scale(site, scales[site.var])
            elif site.var in copies:
                self._repeat(structure.graph, site, copies[site.var])

    def _scale(self, site: Site, scale: np.ndarray) -> None:
        for layer in site.layers:
            self._changes.setdefault(layer.var, _Change()).rows = scale
        for other in site.others:
            self._others.setdefault(other, []).append(site.var)

    def _repeat(self, graph: Graph, site: Site, counts: np.ndarray) -> None:
        assert site.source is not None
        places = np.repeat(np.arange(counts.size), counts)
        self._changes.setdefault(site.source.var, _Change()).outputs = places
        for layer in site.layers:
            self._changes.setdefault(layer.var, _Change()).inputs = places
            for moved in between(graph, layer.data, site.var):
                self._moved[moved] = places.size
        self._members |= dict.fromkeys(site.source.group.members[1:], places)
        self._ends[site.var] = (1 / counts[places]).astype(np.float32)

    def rewrite(self, expr: Any) -> Any:
        var = self.old_var
        if var in self._changes:
            expr = self._layer(expr, self._changes[var])
        elif var in self._members:
            expr = self._member(expr, self._members[var])
        elif var in self._moved and is_call(expr, "relax.reshape"):
            expr = relax.op.reshape(expr.args[0], [*expr.args[1].values[:-1], self._moved[var]])
        if var in self._others:
            expr = self._undone(expr, self._others[var])
        if var in self._scales:
            expr = self._norm(expr, self._scales[var])
        if var in self._ends:
            expr = relax.op.multiply(self.emit(expr), constant(self._ends[var]))
        return expr

    def _layer(self, call: Any, change: _Change) -> Any:
        weight = array_of(call.args[1])
        assert weight is not None
        if change.rows is not None:
            weight = (weight * change.rows[:, None]).astype(np.float32)
        if change.inputs is not None:
            weight = weight[change.inputs]
        if change.outputs is not None:
            weight = weight[:, change.outputs]
        return relax.Call(call.op, [call.args[0], constant(weight)], call.attrs)

    def _member(self, call: Any, places: np.ndarray) -> Any:
        """Return an operator after a layer with its constants repeated as the channels are."""

        def repeated(argument: Any) -> Any:
            value = array_of(argument)
            if value is None or value.ndim == 0 or value.shape[-1] == 1:
                return argument
            return constant(value[..., places])

        return relax.Call(call.op, [repeated(argument) for argument in call.args], call.attrs)

    def _undone(self, call: Any, vars: Sequence[Any]) -> Any:
        """Return an operator that reads values as they were before they were divided."""
        before = {
            self.new(var): self.emit(relax.op.multiply(self.new(var), _vector(self._scales[var])))
            for var in vars
        }
        return relax.Call(call.op, [before.get(a, a) for a in call.args], call.attrs, call.ty_args)

    def _norm(self, call: Any, scale: np.ndarray) -> Any:
        divided = [constant((array_of(argument) / scale).astype(np.float32)) for argument in call.args[1:]]
        return relax.Call(call.op, [call.args[0], *divided], call.attrs)


def _vector(scale: np.ndarray) -> Any:
    return constant(scale.astype(np.float32))
