"""Where in the user's code a graph node or an exception comes from."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>[^\n]+)')


@dataclass(frozen=True)
class Location:
    """A place in a model: `module` is the path of the nn.Module (``layer1.0.conv1``, empty for the model
    itself), `kind` its class, `source` the user's own ``file:line`` (empty where torch kept none).
    """

    module: str
    kind: str
    source: str

    def __str__(self) -> str:
        module = f"{self.module or 'the model'}{f' ({self.kind})' if self.kind else ''}"
        return f"{module} at {self.source}" if self.source else module


def locate_node(node: Any) -> Location:
    """Return where `node` (a torch.fx.Node of an exported program) comes from."""
    path, kind = module_of(node)
    return Location(path, kind, _source_of(node.meta.get("stack_trace") or ""))


def module_of(node: Any) -> tuple[str, str]:
    """Return the path and the class name of the innermost nn.Module that `node` was traced in."""
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return "", ""
    path, kind = list(stack.values())[-1]
    name = kind if isinstance(kind, str) else kind.__name__
    return path, name.rpartition(".")[2]


def source_of_error(error: BaseException) -> str:
    """Return ``file:line`` of the innermost frame of `error` that is the user's own code, or ``""``."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_users(frame.filename)]
    return f"{_short(own[-1].filename)}:{own[-1].lineno}" if own else ""


def _source_of(trace: str) -> str:
    """Pick the innermost line of a torch stack trace that is the user's own code."""
    frames = [(match["file"], match["line"]) for match in _FRAME.finditer(trace)]
    own = [frame for frame in frames if _is_users(frame[0])]
    if not own:
        return ""
    file, line = own[-1]
    return f"{_short(file)}:{line}"


def _is_users(file: str) -> bool:
    """Whether `file` is a model's code: neither torch, nor TVM, nor Kiln, nor the standard library."""
    if file.startswith("<"):
        return False
    parts = Path(file).parts
    if "site-packages" in parts:
        package = parts[parts.index("site-packages") + 1 :][:1]
        return package not in (("torch",), ("tvm",), ("tvm_ffi",), ("compiler",))
    return not (_inside(file, _OWN) or _inside(file, _STANDARD))


_OWN = Path(__file__).parents[1]
_STANDARD = Path(traceback.__file__).parent


def _inside(file: str, folder: Path) -> bool:
    return folder in Path(file).parents


def _short(file: str) -> str:
    """Give `file` relative to the working directory where it lies inside it."""
    path = Path(file)
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return file
