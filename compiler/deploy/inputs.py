"""Checks inputs against the signature, so that nothing wrong reaches compiled code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from compiler.support.errors import InputError, did_you_mean
from compiler.support.signature import Dim, Signature, TensorSpec

_PRODUCT = re.compile(r"(?:(\d+)\s*\*\s*)?([A-Za-z_]\w*)(?:\s*\*\s*(\d+))?")

Shape = tuple[int, ...]


def bind(signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the values in signature order.

    Raises:
        InputError: one is missing, given twice, or has no such name.
    """
    specs = signature.inputs
    if not kwargs and len(args) == len(specs):
        return list(args)
    names = [spec.name for spec in specs]
    listing = ", ".join(names) or "none"
    if len(args) > len(specs):
        raise InputError(f"expected {len(specs)} inputs ({listing}), got {len(args)}")
    given = dict(zip(names, args, strict=False))
    for name in kwargs:
        if name not in names:
            raise InputError(f"there is no input '{name}'{did_you_mean(name, names)} (inputs: {listing})")
        if name in given:
            raise InputError(f"input '{name}' is given twice, by position and by name")
    given |= kwargs
    if missing := [name for name in names if name not in given]:
        raise InputError(f"input '{missing[0]}' is missing (inputs: {listing})")
    return [given[name] for name in names]


class ShapeChecker:
    """Compares shapes with the signature's; symbolic dimensions must agree and stay in range."""

    def __init__(self, signature: Signature) -> None:
        self._dims = signature.dims
        self._specs = signature.inputs
        self._static = [
            spec.shape if all(isinstance(dim, int) for dim in spec.shape) else None
            for spec in signature.inputs
        ]
        self._symbolic = None in self._static

    def __call__(self, shapes: Sequence[Shape]) -> None:
        """Check the shapes of all inputs, in signature order.

        Raises:
            InputError: naming the input, what was expected and what was got.
        """
        for spec, static, shape in zip(self._specs, self._static, shapes, strict=True):
            if static is not None and static != shape:
                raise self._wrong(spec, shape)
        if self._symbolic:
            self._check_symbolic(shapes)

    def _check_symbolic(self, shapes: Sequence[Shape]) -> None:
        known: dict[str, tuple[int, str]] = {}
        for spec, static, shape in zip(self._specs, self._static, shapes, strict=True):
            if static is not None:
                continue
            if len(shape) != len(spec.shape):
                raise self._wrong(spec, shape)
            for dim, extent in zip(spec.shape, shape, strict=True):
                self._check_dim(spec, shape, dim, extent, known)

    def _check_dim(
        self, spec: TensorSpec, shape: Shape, dim: Dim, extent: int, known: dict[str, tuple[int, str]]
    ) -> None:
        if isinstance(dim, int):
            if dim != extent:
                raise self._wrong(spec, shape)
            return
        product = _PRODUCT.fullmatch(dim)
        if product is None:
            # A relation that only the library can compute; it checks the extent itself.
            return
        factor, name = int(product[1] or product[3] or 1), product[2]
        if extent % factor:
            raise self._wrong(spec, shape)
        value = extent // factor
        low, high = self._dims.get(name, (0, None))
        if value < low or (high is not None and value > high):
            raise self._wrong(spec, shape)
        before, where = known.setdefault(name, (value, spec.name))
        if before != value:
            raise InputError(
                f"input '{spec.name}': expected shape {show_shape(spec.shape)} with {name} = {before}, "
                f"as in input '{where}', got {show_shape(shape)}"
            )

    def _wrong(self, spec: TensorSpec, shape: Shape) -> InputError:
        ranges = ", ".join(
            f"{name} {low} or more" if high is None else f"{name} from {low} to {high}"
            for name, (low, high) in self._dims.items()
            if any(isinstance(dim, str) and re.search(rf"\b{re.escape(name)}\b", dim) for dim in spec.shape)
        )
        expected = show_shape(spec.shape) + (f" ({ranges})" if ranges else "")
        return InputError(f"input '{spec.name}': expected shape {expected}, got {show_shape(shape)}")


def show_shape(shape: Sequence[Dim]) -> str:
    """Write a shape as ``1x3x224x224``; ``scalar`` for no dimensions."""
    return "x".join(map(str, shape)) or "scalar"


def wrong_dtype(spec: TensorSpec, got: str, how: Callable[[str], str]) -> InputError:
    """Return the error for an input of another dtype; `how` writes the conversion that mends it."""
    return InputError(
        f"input '{spec.name}': expected {spec.dtype}, got {got}; convert it with {how(spec.dtype)}"
    )
