"""Inputs described as text: ``name=1x3x224x224:float32``.

x=1x3x224x224               float32 is the default
ids=1x128:int64[0,1000]     random values between 0 and 1000, both included
x=Nx3x224x224               N is a symbolic dimension
x=N[1,64]x3x8*Hx8*W         with a range, and as a multiple of one
step=scalar:int64           no dimensions
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from compiler.support.errors import UsageError, did_you_mean

DTYPES = ("float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool")

_SPEC = re.compile(
    r"(?P<name>[^=\s]+)=(?P<shape>[^:]+)(:(?P<dtype>[a-z]+\d*)(\[(?P<low>[^,\]]+),(?P<high>[^,\]]+)\])?)?"
)
_AXIS = re.compile(
    r"((?P<factor>\d+)\*)?(?P<name>[A-Za-wyz_][A-Za-wyz0-9_]*)(\[(?P<low>\d+),(?P<high>\d*)\])?|(?P<extent>\d+)"
)
_EXAMPLE = "for example --input x=1x3x224x224:float32"


@dataclass(frozen=True)
class Axis:
    """A dimension: `factor` times the symbol `name` within `low` .. `high`, or the fixed extent `factor`."""

    factor: int
    name: str | None = None
    low: int = 1
    high: int | None = None


@dataclass(frozen=True)
class InputText:
    """One parsed description; `bounds` are the least and greatest random value, both included."""

    name: str
    axes: tuple[Axis, ...]
    dtype: str
    bounds: tuple[float, float] | None = None


def parse_inputs(texts: Iterable[str]) -> tuple[InputText, ...]:
    """Parse descriptions of inputs, in order.

    Raises:
        UsageError: a text that does not follow the form, an unknown dtype, or a name given twice.
    """
    parsed = tuple(_parse(text) for text in texts)
    names = [each.name for each in parsed]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"input '{name}' is described twice; describe each input once")
    return parsed


def _parse(text: str) -> InputText:
    match = _SPEC.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"expected an input as name=SHAPE:dtype, got '{text}'; {_EXAMPLE}")
    dtype = match["dtype"] or "float32"
    if dtype not in DTYPES:
        raise UsageError(
            f"expected a dtype such as float32 in '{text}', got '{dtype}'{did_you_mean(dtype, DTYPES)}"
        )
    shape = match["shape"]
    axes = () if shape == "scalar" else tuple(_axis(part, text) for part in shape.split("x"))
    return InputText(match["name"], axes, dtype, _bounds(match["low"], match["high"], text))


def _axis(part: str, text: str) -> Axis:
    match = _AXIS.fullmatch(part)
    if match is None:
        raise UsageError(
            f"expected dimensions joined by 'x' in '{text}', got '{part}'; {_EXAMPLE}, "
            "or a name such as N for a dimension that may vary (names have no 'x')"
        )
    if match["extent"] is not None:
        return Axis(int(match["extent"]))
    low = int(match["low"]) if match["low"] else 1
    high = int(match["high"]) if match["high"] else None
    if low < 1 or (high is not None and high < low):
        raise UsageError(f"expected 1 <= least <= greatest for dimension '{match['name']}' in '{text}'")
    return Axis(int(match["factor"] or 1), match["name"], low, high)


def _bounds(low: str | None, high: str | None, text: str) -> tuple[float, float] | None:
    if low is None or high is None:
        return None
    try:
        bounds = (float(low), float(high))
    except ValueError as error:
        raise UsageError(
            f"expected two numbers as the range of values in '{text}', got [{low},{high}]"
        ) from error
    if not bounds[0] <= bounds[1]:
        raise UsageError(f"expected least <= greatest value in '{text}', got [{low},{high}]")
    return bounds


def make_example(inputs: Iterable[InputText], seed: int = 0) -> dict[str, Any]:
    """Make a random torch tensor for each described input, by name.

    A symbolic dimension gets a small extent inside its range: 2 in front (a batch), 64, 96, 128 ... elsewhere
    (distinct, so that no two dimensions are taken for one).
    """
    inputs = tuple(inputs)
    extents = example_extents(inputs)
    return {
        each.name: random_tensor(
            tuple(axis_extent(a, extents) for a in each.axes), each.dtype, each.bounds, seed + i
        )
        for i, each in enumerate(inputs)
    }


def axis_extent(axis: Axis, extents: Mapping[str, int]) -> int:
    """Return the extent of `axis` where each symbol has the given extent."""
    return axis.factor if axis.name is None else axis.factor * extents[axis.name]


def example_extents(inputs: Iterable[InputText]) -> dict[str, int]:
    """Choose an extent for every symbol of `inputs`."""
    extents: dict[str, int] = {}
    wanted = 64
    for each in inputs:
        for position, axis in enumerate(each.axes):
            if axis.name is None or axis.name in extents:
                continue
            extent = 2 if position == 0 else max(2, wanted // axis.factor)
            wanted += 0 if position == 0 else 32
            extent = max(extent, axis.low)
            extents[axis.name] = extent if axis.high is None else min(extent, axis.high)
    return extents


def random_tensor(shape: tuple[int, ...], dtype: str, bounds: tuple[float, float] | None, seed: int) -> Any:
    """Make a random torch tensor; without `bounds` floats are standard normal, integers and bools 0 or 1."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    kind = getattr(torch, dtype)
    if kind.is_floating_point:
        if bounds is None:
            return torch.randn(shape, generator=generator).to(kind)
        return (torch.rand(shape, generator=generator) * (bounds[1] - bounds[0]) + bounds[0]).to(kind)
    low, high = (0, 1) if bounds is None else (int(bounds[0]), int(bounds[1]))
    return torch.randint(low, high + 1, shape, generator=generator).to(kind)
