"""The base of what rounds values of a graph: those read inside are rounded, those that it returns are not."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from tvm import relax

from compiler.compress.observe import WithOutputs


class Rounding(WithOutputs):
    """Rounds `values`, and changes layers; a subclass says how (`round`, `layer`).

    ``main`` returns what it returned, unrounded, and then the values of `outputs`, as they are read inside.
    """

    name = "Rounding"

    def __init__(self, values: Container[Any], outputs: Sequence[Any] = ()) -> None:
        super().__init__(outputs)
        self._values = values
        self._exact: dict[Any, Any] = {}

    def round(self, var: Any, value: Any) -> Any:
        """Return the rounded `value`, which is what became of `var`."""
        raise NotImplementedError

    def layer(self, expr: Any) -> Any:
        """Return what stands for `expr` before its value is rounded."""
        return expr

    def begin(self, params: list[Any]) -> None:
        """Round the inputs."""
        for param in params:
            if param in self._values:
                self.replace(param, self._rounded(param, param))

    def rewrite(self, expr: Any) -> Any:
        """Change a layer, and round a value."""
        expr = self.layer(expr)
        return self._rounded(self.old_var, self.emit(expr)) if self.old_var in self._values else expr

    def finish(self, value: Any) -> Any:
        """Return the outputs as they were computed: nobody saves by their rounding."""
        own = self.definition(value)
        return super().finish(relax.Tuple([self._exact.get(field, field) for field in own.fields]))

    def _rounded(self, var: Any, value: Any) -> Any:
        rounded = self.emit(self.round(var, value))
        self._exact[rounded] = value
        return rounded
