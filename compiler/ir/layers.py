"""Which part of the user's model a variable of the graph computes: it is in the variable's name.

The importer names each variable by the node of the model's graph that it converts, and a mark; TVM appends
a number where that is taken. Rewriters keep the names of what they replace. Fusion gives its calls new ones,
see `compiler.passes.name_groups`.
"""

from __future__ import annotations

import re
from typing import Any

_NAME = re.compile(r"(.+?)__\d*")


def hint(node: str) -> str:
    """Return the name of a variable that computes `node`; empty for none."""
    return f"{node}__" if node else ""


def layer_of(var: Any) -> str:
    """Return the node that a variable computes, empty if that is not known."""
    found = _NAME.fullmatch(str(var.name)) if var is not None else None
    return found[1] if found else ""
