"""A model whose layers can be quantized one by one while it runs, for want of a compilation each.

    x                ->  where(on[i], dequantize(quantize(x, scales[i], zeros[i])), x)
    conv2d(x, w)     ->  conv2d(x, w) + on[j] * conv2d(x, round(w) - w)

and what is rounded at run time, only for the layer that reads it: where(on[j], rounded(x), x). The scales,
zero points and switches are inputs of ``main``, after its own. It computes in float what the
quantized model computes; integers differ from it where rounding errors of float32 decide on a code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from compiler.compress.activations import RunTime, StoredGrid, at_run_time, stored
from compiler.compress.floats import FloatGrid
from compiler.compress.numerics import LinearGrid
from compiler.compress.plan import Plan
from compiler.compress.rounding import Rounding
from compiler.compress.scheme import Float, Linear, Quantizer
from compiler.compress.weights import QuantizedWeights
from compiler.frontend.model import Model
from compiler.ir.constants import array_of, constant
from compiler.support.signature import Signature, TensorSpec

_NAMES = ("kiln_scales", "kiln_zeros", "kiln_rounded", "kiln_layers")
_DTYPES = ("float32", "int32", "float32", "float32")


@dataclass(frozen=True, eq=False)
class Switches:
    """Which values and layers of a simulation are quantized, and how: its inputs after the model's own."""

    scales: np.ndarray
    zeros: np.ndarray
    rounded: np.ndarray
    layers: np.ndarray

    @property
    def arrays(self) -> list[np.ndarray]:
        """The inputs, in order."""
        return [self.scales, self.zeros, self.rounded, self.layers]


class Simulation:
    """The module of a simulation, and what to give it.

    Attributes:
        mod: the module; ``main`` returns the outputs of the model, then the values that were asked for.
        signature: of its inputs; the outputs are the model's own.
    """

    def __init__(
        self,
        model: Model,
        plan: Plan,
        weights: Mapping[Any, QuantizedWeights],
        corrections: Mapping[Any, np.ndarray],
        outputs: Sequence[Any] = (),
        activations: Quantizer | None = None,
    ) -> None:
        """Make the module of `model` and the most that may be quantized in it; `outputs` are values of it.

        `activations` says what `plan` stores, or if that is nothing, how layers round what they read.
        """
        # What was only moved is on the grid already.
        self._values = [var for stands in plan.observed.values() for var in stands]
        self._layers = [layer.var for layer in plan.layers]
        errors = _Errors(weights, corrections)
        self.mod = _Simulate(self._values, self._layers, errors, outputs, activations).run(model.mod)
        sizes = [len(self._values)] * 3 + [len(self._layers)]
        added = [TensorSpec(n, (max(1, s),), d) for n, s, d in zip(_NAMES, sizes, _DTYPES, strict=True)]
        own = model.signature
        self.signature = Signature((*own.inputs, *added), own.outputs, dims=own.dims)

    def switches(self, plan: Plan, grids: Mapping[Any, StoredGrid]) -> Switches:
        """Return what quantizes as `plan` says, which may be less than what the simulation was made for."""
        made = [grids[plan.bytes[var]] if var in plan.bytes else None for var in self._values]
        layers = {layer.var for layer in plan.layers}
        return Switches(
            _vector([float(g.scale) if isinstance(g, LinearGrid) else 1.0 for g in made], "float32"),
            _vector([int(g.zero_point) if isinstance(g, LinearGrid) else 0 for g in made], "int32"),
            _vector([float(grid is not None) for grid in made], "float32"),
            _vector([float(var in layers) for var in self._layers], "float32"),
        )


@dataclass(frozen=True, eq=False)
class _Errors:
    """What quantizing a layer changes in what it gives, by the value that it gives."""

    weights: Mapping[Any, QuantizedWeights]
    corrections: Mapping[Any, np.ndarray]


def _vector(values: Sequence[float], dtype: str) -> np.ndarray:
    return np.array(values or [0], dtype)


class _Simulate(Rounding):
    name = "Simulate"

    def __init__(
        self,
        values: Sequence[Any],
        layers: Sequence[Any],
        errors: _Errors,
        outputs: Sequence[Any],
        activations: Quantizer | None,
    ) -> None:
        self._numbers = {var: number for number, var in enumerate(values)}
        super().__init__(self._numbers, outputs)
        self._layers = {var: number for number, var in enumerate(layers)}
        self._errors, self._activations = errors, activations
        sizes = [len(values)] * 3 + [len(layers)]
        self._switches = [
            relax.Var(name, relax.TensorType([max(1, size)], dtype))
            for name, size, dtype in zip(_NAMES, sizes, _DTYPES, strict=True)
        ]

    def inputs(self, params: list[Any]) -> list[Any]:
        return [*params, *self._switches]

    def layer(self, expr: Any) -> Any:
        """Return what a layer gives, and what the error of its weights adds to that."""
        var = self.old_var
        if var not in self._layers:
            return expr
        before = array_of(expr.args[1])
        assert before is not None
        error = constant(self._errors.weights[var].values - before)
        switch = self._switch(3, self._layers[var])
        data, weight = expr.args
        if not self._numbers and isinstance(self._activations, RunTime):
            data = self._chosen(switch, at_run_time(self.emit, data, self._activations), data)
        exact = self.emit(relax.Call(expr.op, [data, weight], expr.attrs, expr.ty_args))
        added = self.emit(relax.Call(expr.op, [data, error], expr.attrs, expr.ty_args))
        if var in self._errors.corrections:
            added = self.emit(relax.op.add(added, constant(self._errors.corrections[var])))
        return relax.op.add(exact, self.emit(relax.op.multiply(added, switch)))

    def round(self, var: Any, value: Any) -> Any:
        scale, zero, on = (self._switch(kind, self._numbers[var]) for kind in range(3))
        if isinstance(self._activations, Float):
            return self._chosen(on, stored(self.emit, value, FloatGrid(self._activations)), value)
        assert isinstance(self._activations, Linear), "no others are stored"
        storage = self._activations.storage
        codes = self.emit(relax.op.quantize(value, scale, zero, axis=0, out_dtype=storage))
        rounded = self.emit(relax.op.dequantize(codes, scale, zero, axis=0, out_dtype="float32"))
        return self._chosen(on, rounded, value)

    def _chosen(self, switch: Any, rounded: Any, value: Any) -> Any:
        return self.emit(relax.op.where(self.emit(relax.op.astype(switch, "bool")), rounded, value))

    def _switch(self, kind: int, number: int) -> Any:
        """Return one number of an input, as a scalar."""
        taken = relax.op.take(self._switches[kind], relax.const(number, "int64"), axis=0, mode="clip")
        return self.emit(taken)
