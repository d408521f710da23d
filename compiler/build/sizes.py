"""Sizes that vary from run to run, such as a batch: bounded, so that memory can be planned for the greatest.

Every extent of a tensor is an expression over the sizes, which are extents of the inputs. Here is what they
are at most, and what they are in C.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import sym, tirx
from tvm.ir.prim import expr as prim

from compiler.build.memory_plan import aligned
from compiler.support.errors import BuildError


@dataclass(frozen=True)
class SizeSpec:
    """A size: from `least` to `greatest`, read off the `dimension` of the `input` of that number."""

    name: str
    least: int
    greatest: int
    input: int
    dimension: int


class Sizes:
    """The sizes of one function."""

    def __init__(self, main: Any) -> None:
        """Find them among the shapes of the inputs of ``main``.

        Raises:
            BuildError: one has no greatest value.
        """
        self.specs: list[SizeSpec] = []
        self._known: list[tuple[Any, int]] = []
        self._analyzer = sym.Analyzer()
        attributes = main.attrs or {}
        lower, upper = (attributes.get(f"tir_var_{way}_bound", {}) for way in ("lower", "upper"))
        for number, parameter in enumerate(main.params):
            for dimension, extent in enumerate(getattr(parameter.ty, "shape", None) or ()):
                if isinstance(extent, tvm.ir.Var) and self._place(extent) is None:
                    self._add(extent, number, dimension, lower, upper)

    def _add(self, var: Any, number: int, dimension: int, lower: Any, upper: Any) -> None:
        name = str(var.name)
        if name not in upper:
            raise BuildError(
                f"the size '{name}' has no greatest value, for which memory would be planned; state one, "
                f"such as --input x={name}[1,8]x..."
            )
        spec = SizeSpec(name, int(lower.get(name, 1)), int(upper[name]), number, dimension)
        self._known.append((var, len(self.specs)))
        self.specs.append(spec)
        self._analyzer.bind(var, tvm.ir.Range(spec.least, spec.greatest + 1))

    def _place(self, var: Any) -> int | None:
        return next((place for known, place in self._known if known.same_as(var)), None)

    def greatest(self, extent: Any) -> int:
        """Return what an extent is at most.

        Raises:
            BuildError: it depends on more than the sizes.
        """
        if isinstance(extent, tirx.IntImm):
            return int(extent)
        self.in_c(extent)
        return int(self._analyzer.const_int_bound(extent).max_value)

    def in_c(self, extent: Any) -> str:
        """Return an extent as C over ``SIZE(number)``.

        Raises:
            BuildError: it depends on more than the sizes.
        """
        if isinstance(extent, tirx.IntImm):
            return str(int(extent))
        place = self._place(extent) if isinstance(extent, tvm.ir.Var) else None
        if place is not None:
            return f"SIZE({place})"
        for kind, form in _FORMS.items():
            if isinstance(extent, kind):
                return form.format(self.in_c(extent.a), self.in_c(extent.b))
        if isinstance(extent, prim.Cast):
            return self.in_c(extent.value)
        raise BuildError(f"the extent {extent} is known only when it runs")


_FORMS: Mapping[Any, str] = {
    prim.Add: "({} + {})",
    prim.Sub: "({} - {})",
    prim.Mul: "({} * {})",
    prim.FloorDiv: "({} / {})",
    prim.FloorMod: "({} % {})",
    prim.Div: "({} / {})",
    prim.Mod: "({} % {})",
    prim.Min: "KILN_MIN({}, {})",
    prim.Max: "KILN_MAX({}, {})",
}
"""Extents are never negative, so C's division is the floor's."""


_ENDLESS = 1 << 62
"""What TVM's analyzer gives for the greatest value of what it knows nothing about, at least."""


@dataclass(frozen=True)
class Scratch:
    """What a kernel allocates: bytes, as expressions over the `variables` that it is called with."""

    variables: tuple[Any, ...] = ()
    sizes: tuple[Any, ...] = ()

    def bytes(self, values: Sequence[int]) -> int:
        """Return the sum of all, each aligned, where the variables have these `values`.

        Raises:
            BuildError: a size depends on more.
        """
        analyzer = sym.Analyzer()
        for variable, value in zip(self.variables, values, strict=True):
            analyzer.bind(variable, tvm.ir.Range(value, value + 1))
        found = [int(analyzer.const_int_bound(size).max_value) for size in self.sizes]
        if max(found, default=0) > _ENDLESS:
            raise BuildError(f"a kernel needs memory of a size that is known late: {self.sizes}")
        return sum(map(aligned, found))
