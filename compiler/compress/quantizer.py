"""A model that is being quantized: its structure, its statistics, and what can be made of them."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np
import tvm

from compiler.compress.activations import RunTime, StoredGrid
from compiler.compress.calibrate import Statistics
from compiler.compress.correct import mean_error
from compiler.compress.floats import FloatGrid
from compiler.compress.insert import insert
from compiler.compress.numerics import grid_of_range
from compiler.compress.observe import with_outputs
from compiler.compress.observers import Observer
from compiler.compress.operators import CONVOLUTIONS, TRANSPOSED, input_axis, output_axis
from compiler.compress.plan import Layer, Plan, Structure
from compiler.compress.ranges import LeastSquares, Method, MinMax, Range
from compiler.compress.recipe import Recipe
from compiler.compress.scheme import Float, Linear
from compiler.compress.simulate import Simulation
from compiler.compress.weights import QuantizedWeights, quantize_weights
from compiler.frontend.layer_names import layer_names
from compiler.frontend.model import Model
from compiler.ir.constants import array_of, constant
from compiler.ir.graph import Graph
from compiler.ir.rewriter import is_call
from compiler.support.errors import InputError, ModelError, UsageError, did_you_mean
from compiler.support.progress import Progress


@dataclass(frozen=True, eq=False)
class Choice:
    """What is quantized, and on which grids: `grids` by the value that stands for all of a grid."""

    plan: Plan
    grids: Mapping[Any, StoredGrid]


class Quantizer:
    """A model in float (in the canonical form) with a recipe.

    Attributes:
        structure: the layers and groups of its graph.
        reasons: the layers that the recipe keeps in float, by name, with why.
        most: the plan that quantizes all other layers.
    """

    def __init__(self, model: Model, recipe: Recipe, whole: Container[str] = ()) -> None:
        """Look at `model`; of the values named in `whole` the method that is the default cuts nothing off.

        Raises:
            ModelError: there is nothing to quantize.
            UsageError: the scheme cannot be applied, or a name of the recipe is not there.
        """
        recipe.check_scheme()
        self.model, self.recipe, self.scheme = model, recipe, recipe.scheme
        self._whole = whole
        graph = Graph(model.mod)
        if graph.has_control_flow:
            raise ModelError(f"{model.origin} has branches that depend on data; it cannot be quantized")
        self.structure = Structure(graph, layer_names(model))
        self.reasons = _kept(self.structure, recipe)
        self.most = self._plan(self.reasons)
        if not self.most.layers:
            raise ModelError(_nothing(self.structure, self.reasons, model.origin))
        self._statistics: Statistics | None = None

    def _plan(self, reasons: Mapping[str, str]) -> Plan:
        stored = self.scheme.activations is not None and not self.scheme.dynamic
        return self.structure.plan(reasons, stored=stored)

    # Statistics

    @cached_property
    def observed(self) -> tuple[Any, ...]:
        """The values to observe, in the order of the outputs of `observing`: for ranges and means."""
        if not self.scheme.needs_data:
            return ()
        ranged = [var for values in self.most.observed.values() for var in values]
        read = [layer.data for layer in self.most.layers] if self.recipe.bias_correction else []
        return tuple(dict.fromkeys([*ranged, *read]))

    def observing(self) -> tvm.IRModule:
        """Return the model such that it also gives the values to observe."""
        return with_outputs(self.model.mod, self.observed)

    def observers(self) -> dict[str, Observer]:
        """Return new observers of these values, by name."""
        read = {layer.data: layer for layer in self.most.layers}
        axes = {var: self._channel_axis(read[var]) if var in read else None for var in self.observed}
        return {self.structure.names[var]: Observer(axis) for var, axis in axes.items()}

    def use(self, statistics: Statistics) -> None:
        """Take the ranges of values from `statistics`.

        Raises:
            InputError: they are of another model.
        """
        statistics.require(self.structure.names[var] for var in self.observed)
        self._statistics = statistics

    def round_by(self, moments: Mapping[Any, np.ndarray]) -> None:
        """Round weights adaptively, by the second moments of what each layer reads, by the value it gives."""
        self.weights = {}
        progress = Progress("layer", len(self.most.layers))
        for number, layer in enumerate(self.most.layers, 1):
            self.weights[layer.var] = self._weights(layer, moments.get(layer.var))
            progress.done(number)

    @property
    def statistics(self) -> Statistics:
        """What was observed."""
        assert self._statistics is not None, "use() comes first"
        return self._statistics

    def observer(self, var: Any) -> Observer:
        """Return what was observed of a value."""
        return self.statistics[self.structure.names[var]]

    @cached_property
    def ranges(self) -> dict[Any, Range]:
        """The range of each observed value, by the method of the recipe."""
        linear = self.scheme.activations
        assert isinstance(linear, Linear), "only integers have ranges"
        ranged = [var for values in self.most.observed.values() for var in values]
        return {var: self._method(var).range(self.observer(var), linear) for var in ranged}

    def _method(self, var: Any) -> Method:
        """Return how the range of a value is chosen.

        The squared error counts each value alike. In a transformer the few that are far out are those that
        all tokens attend to, and once channels are balanced they are no longer far out for what they cost.
        An image was bytes once: on a grid over all of its range its values lie exactly.
        """
        whole = self.structure.names[var] in self._whole or var in set(self.structure.graph.inputs)
        return MinMax() if whole and isinstance(self.recipe.method, LeastSquares) else self.recipe.method

    # What is made of them

    @cached_property
    def weights(self) -> dict[Any, QuantizedWeights]:
        """The quantized weights of each layer, by the value that it gives."""
        return {layer.var: self._weights(layer) for layer in self.most.layers}

    @cached_property
    def corrections(self) -> dict[Any, Any]:
        """What to add to each layer's output for the mean error of its weights; empty without correction."""
        if not self.recipe.bias_correction or not self.scheme.needs_data:
            return {}
        found = {}
        for layer in self.most.layers:
            channels = self._channels(layer)
            if channels is not None:
                call = self.structure.graph.definition(layer.var)
                error = self.weights[layer.var].values - array_of(call.args[1])
                found[layer.var] = -mean_error(call, error, channels)
        return found

    def choose(self, reasons: Mapping[str, str]) -> Choice:
        """Return what is quantized if the layers named in `reasons` stay in float, too."""
        plan = self._plan({**self.reasons, **reasons})
        return Choice(plan, {stands: self._grid(values) for stands, values in plan.observed.items()})

    def _grid(self, values: Sequence[Any]) -> StoredGrid:
        """Return the grid that all of `values` share."""
        become = self.scheme.activations
        if isinstance(become, Float):
            return FloatGrid(become)
        assert isinstance(become, Linear), "no others are stored"
        low, high = (min(self.ranges[var][0] for var in values), max(self.ranges[var][1] for var in values))
        return grid_of_range(low, high, become)

    def quantized(self, choice: Choice) -> tvm.IRModule:
        """Return the quantized module."""
        return self._inserted(choice, lambda weights: weights.expr())

    def rounded(self, choice: Choice) -> tvm.IRModule:
        """Return the quantized module with weights as floats: all of its layers compute in float."""
        return self._inserted(choice, lambda weights: constant(weights.values))

    def _inserted(self, choice: Choice, expr: Callable[[QuantizedWeights], Any]) -> tvm.IRModule:
        chosen = [layer.var for layer in choice.plan.layers]
        weights = {var: expr(self.weights[var]) for var in chosen}
        corrections = {var: self.corrections[var] for var in chosen if var in self.corrections}
        return insert(self.model.mod, choice.plan, choice.grids, weights, corrections, self.dynamic)

    @property
    def dynamic(self) -> RunTime | None:
        """How layers round what they read at run time, if they do."""
        become = self.scheme.activations
        return become if self.scheme.dynamic and isinstance(become, RunTime) else None

    def simulation(self, outputs: Sequence[Any] = ()) -> Simulation:
        """Return the module whose layers can be quantized one by one, which also gives `outputs`."""
        changes = (self.weights, self.corrections)
        return Simulation(self.model, self.most, *changes, outputs, self.scheme.activations)

    def _weights(self, layer: Layer, moments: np.ndarray | None = None) -> QuantizedWeights:
        call = self.structure.graph.definition(layer.var)
        values = array_of(call.args[1])
        assert values is not None
        try:
            axes = (output_axis(call), input_axis(call))
            return quantize_weights(values, self.scheme.weights, *axes, moments)
        except InputError as error:
            raise ModelError(f"the weights of layer '{layer.name}' cannot be quantized: {error}") from error

    def _channel_axis(self, layer: Layer) -> int | None:
        """Return the axis of a layer's input that it sums over with one weight an index."""
        call = self.structure.graph.definition(layer.var)
        rank = int(layer.data.ty.ndim)
        return rank - 1 if is_call(call, "relax.matmul") else 1

    def _channels(self, layer: Layer) -> Any:
        """Return the mean of each channel of what a layer reads, None where it was not observed as such."""
        if layer.data not in self.observed:
            return None
        channels = self.observer(layer.data).channels
        return None if channels is None else channels.mean


def _kept(structure: Structure, recipe: Recipe) -> dict[str, str]:
    """Return the layers that the recipe keeps in float, and why.

    Raises:
        UsageError: a name fits no layer.
    """
    reasons: dict[str, str] = {}
    names = [layer.name for layer in structure.layers]
    if recipe.scheme.dynamic and isinstance(recipe.scheme.activations, Linear):
        convolves = (*CONVOLUTIONS, *TRANSPOSED)
        for layer in structure.layers:
            if is_call(structure.graph.definition(layer.var), *convolves):
                reasons[layer.name] = "scales at run time are for matrix products"
    for pattern in recipe.skip:
        found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            raise UsageError(
                f"there is no layer '{pattern}' to skip{did_you_mean(pattern, names)} (layers: {listed})"
            )
        reasons |= dict.fromkeys(found, f"the recipe skips '{pattern}'")
    ends = ((recipe.first, structure.first, "first"), (recipe.last, structure.last, "last"))
    for policy, layers, word in ends:
        if policy == "float" or (policy is None and recipe.scheme.keeps_ends):
            who = f"scheme '{recipe.scheme.name}'" if policy is None else "recipe"
            reasons |= {layer.name: f"the {who} keeps the {word} layer in float" for layer in layers}
    return reasons


def _nothing(structure: Structure, reasons: Mapping[str, str], origin: str) -> str:
    if structure.layers:
        return f"nothing of {origin} is left to quantize: {'; '.join(dict.fromkeys(reasons.values()))}"
    what = "it has no convolution or matrix product with constant weights"
    return f"there is nothing to quantize in {origin}: {what}"
