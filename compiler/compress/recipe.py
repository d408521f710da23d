"""Recipes: all that is chosen about a quantization, in one value.

A recipe can be read from YAML; every key may be left out:

    scheme: int8                # see compiler.compress.scheme
    method: mse                 # how ranges are chosen: minmax, average, percentile:99.9, mse, entropy
    skip: [head.*, conv2d_0]    # layers that stay in float, by name or pattern
    first: float                # the layers that read the network's input: quantize or float
    last: quantize              # the layers that no other follows
    rounding: nearest           # of weights: nearest, or adaptive: by what the data makes of the errors
    bias_correction: true
    equalize: false
    balance: auto               # move wide channels into weights behind norms: auto, off, or how much, 0 to 1
    samples: 128                # the most batches of data to calibrate with
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.compress.ranges import LeastSquares, Method, method_named
from compiler.compress.scheme import Binary, Float, Linear, Scheme, scheme_named
from compiler.support.errors import UsageError, did_you_mean

_LARGEST = 1 << 20
_POLICIES = ("quantize", "float")
_ROUNDINGS = ("nearest", "adaptive")


@dataclass(frozen=True)
class Recipe:
    """What a model is to become, and how.

    Attributes:
        scheme: what numbers become.
        method: how the ranges of activations are chosen.
        skip: names of layers that stay in float; ``*`` and ``?`` stand for any text and any character.
        first: ``"quantize"``, or ``"float"``, the layers that read an input of the network; None leaves it to
            the scheme: with weights of one bit they stay in float.
        last: the same for layers that no other layer follows.
        rounding: of weights, ``"nearest"``, or ``"adaptive"``: such that errors make up for each other on the
            calibration data (`compiler.compress.adaptive`).
        bias_correction: move the mean error of a layer's weights into its bias (Nagel et al., "Data-Free
            Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2).
        equalize: scale the channels between two layers so that their weights have like ranges (section 4.1).
        balance: move what a few channels have too much of behind norms and activations, in models made of
            matrix products (`compiler.compress.balance`): ``"auto"``, ``"off"``, or how much of the ranges
            weights take over, from 0 to 1.
        samples: the most batches of data to calibrate with, None for all.
    """

    scheme: Scheme = dataclasses.field(default_factory=lambda: scheme_named("int8"))
    method: Method = dataclasses.field(default_factory=LeastSquares)
    skip: tuple[str, ...] = ()
    first: str | None = None
    last: str | None = None
    rounding: str = "nearest"
    bias_correction: bool = True
    equalize: bool = False
    balance: str | float = "auto"
    samples: int | None = None

    def __post_init__(self) -> None:
        for name in ("first", "last"):
            if getattr(self, name) not in (*_POLICIES, None):
                raise UsageError(f"expected {name} to be quantize or float, got '{getattr(self, name)}'")
        if self.rounding not in _ROUNDINGS:
            raise UsageError(f"expected rounding to be nearest or adaptive, got '{self.rounding}'")
        if not isinstance(self.balance, float) and self.balance not in ("auto", "off"):
            raise UsageError(f"expected balance to be auto, off or a number, got '{self.balance}'")
        if isinstance(self.balance, float) and not 0 <= self.balance <= 1:
            raise UsageError(f"expected balance to be from 0 to 1, got {self.balance:g}")
        if self.samples is not None and self.samples < 1:
            raise UsageError(f"expected at least 1 sample to calibrate with, got {self.samples}")

    def check_scheme(self) -> None:
        """Refuse a scheme that no layer can compute, or whose weights cannot be rounded as wanted.

        Raises:
            UsageError: it is one.
        """
        weights, activations = self.scheme.weights, self.scheme.activations
        if self.rounding == "adaptive" and not isinstance(weights, Linear):
            raise UsageError(
                f"adaptive rounding chooses among steps of one size, which the weights of the scheme "
                f"'{self.scheme.name}' ({weights}) do not have; leave out rounding: adaptive"
            )
        if activations is None or (isinstance(activations, Float) and isinstance(weights, Float)):
            return
        if isinstance(activations, Binary) and isinstance(weights, Binary) and self.scheme.dynamic:
            return
        if isinstance(activations, Linear) and not isinstance(weights, Float):
            return
        raise UsageError(
            f"the scheme '{self.scheme.name}' ({self.scheme}) cannot be applied: no kernel multiplies "
            "such weights by such activations"
        )


def as_recipe(value: str | Path | Recipe) -> Recipe:
    """Return the recipe that `value` is, names (a scheme) or holds (a ``.yaml`` file).

    Raises:
        UsageError: there is no such scheme or file, or the file is no recipe.
    """
    if isinstance(value, Recipe):
        return value
    if isinstance(value, Path) or value.endswith((".yaml", ".yml")):
        return read_recipe(Path(value))
    return Recipe(scheme=scheme_named(value))


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from a YAML file.

    Raises:
        UsageError: it cannot be read, or holds an unknown key or a wrong value.
    """
    import yaml

    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"expected a recipe of at most {_LARGEST} bytes, '{path}' is larger")
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the recipe '{path}': {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"expected YAML in the recipe '{path}', got {reason}") from error
    if not isinstance(data, Mapping):
        raise UsageError(f"expected 'scheme: int8' and the like in the recipe '{path}', got {_kind(data)}")
    try:
        return _from_mapping(data)
    except UsageError as error:
        raise UsageError(f"recipe '{path}': {error}") from error


def _from_mapping(data: Mapping[Any, Any]) -> Recipe:
    values = {}
    for key, value in data.items():
        if key not in _READERS:
            near = did_you_mean(str(key), _READERS)
            raise UsageError(f"there is no key '{key}'{near} (keys: {', '.join(_READERS)})")
        values[key] = _READERS[key](key, value)
    return Recipe(**values)


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"expected {key} to be a text, got {_kind(value)}")
    return value


def _texts(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UsageError(f"expected {key} to be a list of names, got {_kind(value)}")
    return tuple(value)


def _switch(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"expected {key} to be true or false, got {_kind(value)}")
    return value


def _balance(key: str, value: Any) -> str | float:
    if value is False:  # as YAML reads `off`
        return "off"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return _text(key, value)


def _count(key: str, value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise UsageError(f"expected {key} to be a number, got {_kind(value)}")
    return value


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "scheme": lambda key, value: scheme_named(_text(key, value)),
    "method": lambda key, value: method_named(_text(key, value)),
    "skip": _texts,
    "first": _text,
    "last": _text,
    "rounding": _text,
    "bias_correction": _switch,
    "equalize": _switch,
    "balance": _balance,
    "samples": _count,
}


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"{value!r} ({type(value).__name__})"
