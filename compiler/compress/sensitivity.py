"""How much each layer loses when it alone is quantized: in what it gives, and in what the network gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.compress.calibrate import Run
from compiler.compress.fidelity import decibels
from compiler.compress.quantizer import Quantizer
from compiler.compress.simulate import Simulation
from compiler.support.progress import Progress


@dataclass(frozen=True)
class Sensitivity:
    """SQNR in dB of what a layer gives (`own`), and of the output of the network that suffers most."""

    own: float
    output: float


def measured_values(quantizer: Quantizer) -> tuple[Any, ...]:
    """Return the values that a simulation has to give besides the outputs: what each layer gives."""
    return tuple(layer.group.output for layer in quantizer.most.layers)


def measure(
    quantizer: Quantizer, simulation: Simulation, run: Run, samples: Sequence[Sequence[np.ndarray]]
) -> dict[str, Sensitivity]:
    """Quantize each layer alone, run it on `samples`, and compare with the model in float.

    Args:
        quantizer: of the model.
        simulation: its simulation, which also gives `measured_values`.
        run: runs the simulation.
        samples: inputs of the model.
    """
    layers = quantizer.most.layers
    alone = {layer.name: _alone(quantizer, simulation, layer.name) for layer in layers}
    nothing = _alone(quantizer, simulation, None)
    count = len(quantizer.model.signature.outputs)
    own = {name: np.zeros(2) for name in alone}
    outputs = {name: np.zeros((count, 2)) for name in alone}
    progress = Progress("run", len(alone) * len(samples))
    for number, sample in enumerate(samples):
        exact = run([*sample, *nothing])
        for place, (name, switches) in enumerate(alone.items()):
            got = run([*sample, *switches])
            own[name] += _powers(exact[count + place], got[count + place])
            outputs[name] += [_powers(exact[i], got[i]) for i in range(count)]
            progress.done(number * len(alone) + place + 1)
    return {
        name: Sensitivity(decibels(*own[name]), min(decibels(*powers) for powers in outputs[name]))
        for name in alone
    }


def _alone(quantizer: Quantizer, simulation: Simulation, name: str | None) -> list[np.ndarray]:
    """Return the switches that quantize the layer `name` and no other."""
    others = {layer.name: "" for layer in quantizer.most.layers if layer.name != name}
    choice = quantizer.choose(others)
    return simulation.switches(choice.plan, choice.grids).arrays


def _powers(exact: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Return the power of a signal, and of its error."""
    if "float" not in exact.dtype.name:
        return np.zeros(2)
    wanted, error = exact.astype(np.float64), got.astype(np.float64) - exact
    return np.array([(wanted**2).sum(), (error**2).sum()])
