"""Fresh random inputs that respect dtypes, value ranges and symbolic dimensions."""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compiler.frontend.model import Model
from compiler.support.errors import InternalError
from compiler.support.signature import Dim, Signature, TensorSpec

Bounds = tuple[float, float]

_OPERATORS: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def random_inputs(
    signature: Signature,
    seed: int,
    *,
    ranges: Mapping[str, Bounds] | None = None,
    sizes: Mapping[str, int] | None = None,
    examples: Sequence[np.ndarray] = (),
) -> list[np.ndarray]:
    """Draw one array for each input of `signature`.

    Args:
        signature: the inputs, with the ranges of symbolic dimensions.
        seed: equal seeds give equal arrays.
        ranges: least and greatest value by input, both included. Otherwise an example's own values bound
            what is drawn (a mask of ones stays one); without an example floats are standard normal,
            integers and bools 0 or 1.
        sizes: extents that symbolic dimensions are known to accept; another one near it is chosen.
        examples: example inputs in the order of the signature.
    """
    generator = np.random.default_rng(seed)
    extents = choose_sizes(signature, sizes or {})
    arrays = []
    for position, spec in enumerate(signature.inputs):
        shape = tuple(extent(dim, extents) for dim in spec.shape)
        example = examples[position] if examples else None
        arrays.append(_draw(generator, spec, shape, (ranges or {}).get(spec.name), example))
    return arrays


def fresh_inputs(model: Model, seed: int) -> list[np.ndarray]:
    """Draw random inputs for `model`, within what it knows about its values and sizes."""
    return random_inputs(
        model.signature, seed, ranges=model.ranges, sizes=model.sizes, examples=model.examples
    )


def choose_sizes(signature: Signature, known: Mapping[str, int]) -> dict[str, int]:
    """Choose an extent for each symbolic dimension, other than the known one where its range allows."""
    chosen = {}
    for name, (low, high) in signature.dims.items():
        if name not in known:
            chosen[name] = max(low, 2 if high is None else min(2, high))
        elif high is None or known[name] < high:
            chosen[name] = known[name] + 1
        else:
            chosen[name] = max(low, known[name] - 1)
    return chosen


def extent(dim: Dim, sizes: Mapping[str, int]) -> int:
    """Return the extent of a dimension such as ``3``, ``"N"`` or ``"8*N"`` for given symbols."""
    if isinstance(dim, int):
        return dim
    if dim in sizes:
        return sizes[dim]
    return int(_evaluate(ast.parse(dim, mode="eval").body, sizes))


def _evaluate(node: ast.expr, sizes: Mapping[str, int]) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name) and node.id in sizes:
        return sizes[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return int(_OPERATORS[type(node.op)](_evaluate(node.left, sizes), _evaluate(node.right, sizes)))
    raise InternalError(f"cannot compute the dimension '{ast.unparse(node)}' from {dict(sizes)}")


def _draw(
    generator: np.random.Generator,
    spec: TensorSpec,
    shape: tuple[int, ...],
    bounds: Bounds | None,
    example: np.ndarray | None,
) -> np.ndarray:
    if spec.dtype.startswith(("float", "bfloat")):
        return np.asarray(_draw_floats(generator, shape, bounds, example)).astype(spec.dtype)
    low, high = _integer_bounds(bounds, example)
    return np.asarray(generator.integers(low, high, shape, endpoint=True)).astype(spec.dtype)


def _integer_bounds(bounds: Bounds | None, example: np.ndarray | None) -> tuple[int, int]:
    if bounds is not None:
        return int(bounds[0]), int(bounds[1])
    if example is not None and example.size:
        return int(example.min()), int(example.max())
    return 0, 1


def _draw_floats(
    generator: np.random.Generator, shape: tuple[int, ...], bounds: Bounds | None, example: np.ndarray | None
) -> Any:
    """Draw floats: in `bounds`, or distributed as `example` is (positive stays positive)."""
    if bounds is not None:
        return generator.uniform(*bounds, size=shape)
    if example is None or example.size < 2 or not np.isfinite(example).all() or example.std() == 0:
        return generator.standard_normal(shape)
    if example.min() >= 0:
        return generator.uniform(float(example.min()), float(example.max()), size=shape)
    return generator.standard_normal(shape) * float(example.std()) + float(example.mean())
