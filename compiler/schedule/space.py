"""The space of a rule's decisions for one kernel: what is legal, and what untuned code takes.

A rule looks at a kernel, says what it could do, and asks which of it to do. Who compiles answers with the
default, or with the decisions of a record; who tunes listens first, and then answers as it likes.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

D = TypeVar("D")
"""A frozen dataclass of decisions."""


def _any(decisions: Any) -> bool:
    del decisions
    return True


@dataclass(frozen=True)
class Space(Generic[D]):
    """Decisions that differ along some axes.

    Attributes:
        default: those of untuned code; whatever they are, they belong to the space.
        axes: for fields of the decisions, the values they can take, neighbours being alike.
            Fields that have no axis stay as they are in `default`.
        legal: tells whether values go together.
    """

    default: D
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    legal: Callable[[D], bool] = _any

    def __iter__(self) -> Iterator[D]:
        """Give all decisions, the default first."""
        yield self.default
        for values in itertools.product(*self.axes.values()):
            decisions = self.replaced(**dict(zip(self.axes, values, strict=True)))
            if decisions != self.default and self.legal(decisions):
                yield decisions

    def __contains__(self, decisions: object) -> bool:
        """Tell whether these are decisions of the space."""
        if decisions == self.default:
            return True
        if type(decisions) is not type(self.default):
            return False
        given = {name: getattr(decisions, name) for name in _names(self.default)}
        within = all(
            value in self.axes[name] if name in self.axes else value == getattr(self.default, name)
            for name, value in given.items()
        )
        return within and self.legal(decisions)

    @property
    def size(self) -> int:
        """How many decisions there are at most: those that do not go together count, too."""
        count = 1
        for values in self.axes.values():
            count *= len(values)
        return count

    def replaced(self, **values: Any) -> D:
        """Return the default with other values."""
        return dataclasses.replace(self.default, **values)  # type: ignore[type-var]


Decide = Callable[[str, Space[Any]], Any]
"""Chooses decisions from the space of the rule of that name."""


def untuned(rule: str, space: Space[D]) -> D:
    """Choose what the cost formula of the rule chose."""
    del rule
    return space.default


def key(plain: Mapping[str, Any]) -> str:
    """Return the text that tells plain decisions apart."""
    return json.dumps(plain, sort_keys=True)


def to_plain(decisions: Any) -> dict[str, Any]:
    """Return decisions as JSON has them."""
    return {} if decisions is None else dataclasses.asdict(decisions)


def from_plain(plain: Mapping[str, Any], space: Space[D]) -> D | None:
    """Return the decisions that `to_plain` made plain, None where they do not belong to `space`."""
    from pydantic import ValidationError

    kind: Any = type(space.default)
    try:
        decisions: D = _adapter(kind).validate_python(dict(plain))
    except ValidationError:
        return None
    return decisions if decisions in space else None


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _names(decisions: Any) -> list[str]:
    return [each.name for each in dataclasses.fields(decisions)]
