"""Converters of TVM's own importer that were checked and are used as they are."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from torch import fx

from compiler.frontend.converters.registry import REGISTRY, _checked

_STOCK: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()


def stock(importer: Any) -> dict[str, Any]:
    """Return TVM's converters bound to `importer`, without ours laid over them."""
    if importer not in _STOCK:
        _STOCK[importer] = importer.create_convert_map()
    return _STOCK[importer]


def use_stock(name: str) -> None:
    """Take over TVM's converter for `name`, with its result checked like our own."""

    def convert(node: fx.Node, importer: Any) -> Any:
        return stock(importer)[name](node)

    REGISTRY[name] = _checked(convert)
