"""Layer by layer: what a bundle computes, and what PyTorch does; `kiln diff`."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compiler import frontend
from compiler.bundle import read
from compiler.deploy.inputs import bind
from compiler.deploy.install import aot_of
from compiler.deploy.layers import LayerDifference, compared_steps, differences, values_here, values_there
from compiler.deploy.remote import Place
from compiler.support.errors import BundleError, UsageError
from compiler.support.progress import stage
from compiler.support.signature import Signature

TOLERANCE, QUANTIZED_TOLERANCE = 1e-3, 0.1
"""Of a layer, as a part of its values' range. Every layer adds its own rounding, so this is more than a whole
float model may be off by; between bytes each rounding is 1/255 of a range, and there are many."""


def diff(
    bundle: str | Path,
    *,
    model: Any = None,
    inputs: Sequence[str] | None = None,
    feeds: Mapping[str, np.ndarray] | None = None,
    place: Place | None = None,
) -> list[LayerDifference]:
    """Compare the layers of a bundle's model with the same in PyTorch, in float.

    Args:
        bundle: its path; an ahead-of-time library.
        model: what it was made from; None takes the name in the bundle.
        inputs: inputs described as text, where they were for `compile`.
        feeds: arrays by the names of inputs; None takes the golden ones.
        place: a board to run on; None runs here.

    Raises:
        KilnError: one of its kinds; the model is another, say.
    """
    opened = read(Path(bundle))
    aot, signature = aot_of(opened), opened.manifest.signature
    with stage("import"):
        imported = frontend.load(opened.manifest.model if model is None else model, inputs=inputs)
    if imported.program is None:
        raise UsageError(f"the layers of {imported.origin} have no names: expected a model of PyTorch")
    _same(signature, imported.signature, bundle)
    arrays = list(bind(signature, (), feeds)) if feeds is not None else opened.golden()[0]
    if not arrays and signature.inputs:
        raise BundleError(f"'{bundle}' has no golden inputs: give some with --input")
    with stage("PyTorch"):
        wanted = _wanted(imported, set(compared_steps(aot).values()), arrays)
    with stage("run"):
        values = (
            values_here(opened, aot, arrays) if place is None else values_there(opened, aot, arrays, place)
        )
    return differences(aot, values, wanted)


def _same(one: Signature, other: Signature, bundle: str | Path) -> None:
    """Refuse another model than the bundle's."""
    if one.inputs != other.inputs:
        raise UsageError(
            f"'{bundle}' takes {'; '.join(map(str, one.inputs))}, and the model "
            f"{'; '.join(map(str, other.inputs))}: give the model that it was made from (--model)"
        )


def _wanted(model: frontend.Model, names: set[str], arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return the values of a model's nodes by their names."""
    named = {node.name: _value(node) for node in model.program.program.graph.nodes if node.name in names}
    known = {name: node for name, node in named.items() if hasattr(node.meta.get("val"), "dtype")}
    values = model.program.interpret(arrays, list(known.values()))
    return dict(zip(known, values, strict=True))


def _value(node: Any) -> Any:
    """Return the node that is the value of `node`: of one with several results, the first of them."""
    firsts = (user for user in node.users if user.target is operator.getitem and user.args[1] == 0)
    return next(firsts, node)
