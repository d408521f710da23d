"""Models named as text: ``package.module:factory`` or ``path/to/file.py:factory``.

The factory may be a function or class that gives an nn.Module, or a module and its example inputs, or
the nn.Module itself. Literal keyword arguments may follow: ``timm:create_model(model_name='resnet18')``.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.frontend.location import source_of_error
from compiler.support.errors import ModelError, UsageError, did_you_mean

_TEXT = re.compile(r"(?P<home>[^:()]+):(?P<name>[A-Za-z_][\w.]*)(?P<call>\(.*\))?", re.DOTALL)


@dataclass(frozen=True)
class Made:
    """What a factory gave: the module, its example inputs (None if it gave none) and the factory's name."""

    module: Any
    examples: Any
    name: str


def is_factory_text(text: str) -> bool:
    """Whether `text` has the form ``home:factory`` (a path of one drive letter is not meant)."""
    match = _TEXT.fullmatch(text)
    return match is not None and len(match["home"]) > 1


def make_module(text: str, seed: int = 0) -> Made:
    """Import and call the factory named by `text`.

    Random weights are drawn from `seed`, so that the same command gives the same model.

    Raises:
        UsageError: no such module or attribute.
        ModelError: the factory raised, or gave something that is not a module.
    """
    import torch

    match = _TEXT.fullmatch(text)
    if match is None:
        raise UsageError(f"expected package.module:factory, got '{text}'")
    arguments, keywords = _arguments(match["call"], text)
    with _importable_here(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        home = _import(match["home"], text)
        found = _attribute(home, match["name"], match["home"])
        # Again: importing may have drawn numbers, and happens only once.
        torch.manual_seed(seed)
        return _accept(_call(found, arguments, keywords, text), match["name"], text)


def find(text: str) -> Callable[..., Any]:
    """Import what `text` names (as for `make_module`) and return a function that calls it.

    What is named need not be a model: it may be a function that yields data, or the data itself, which the
    returned function then gives. Arguments of the call come before those in `text`.

    Raises:
        UsageError: no such module or attribute.
        ModelError: the import raised.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise UsageError(f"expected package.module:function, got '{text}'")
    arguments, keywords = _arguments(match["call"], text)
    with _importable_here():
        found = _attribute(_import(match["home"], text), match["name"], match["home"])

    def call(*given: Any) -> Any:
        with _importable_here():
            return found(*given, *arguments, **keywords) if callable(found) else found

    return call


def _arguments(call: str | None, text: str) -> tuple[list[Any], dict[str, Any]]:
    """Read the literals in ``(1, name='x')``; nothing in it is evaluated."""
    if call is None:
        return [], {}
    try:
        tree = ast.parse(f"f{call}", mode="eval").body
        if not isinstance(tree, ast.Call) or any(keyword.arg is None for keyword in tree.keywords):
            raise ValueError("not a call")
        keywords = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in tree.keywords}
        return [ast.literal_eval(argument) for argument in tree.args], keywords
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"expected literal arguments such as (width=8, act='relu') in '{text}'") from error


def _import(home: str, text: str) -> Any:
    path = Path(home)
    is_file = home.endswith(".py")
    if is_file and not path.is_file():
        raise UsageError(f"cannot find the Python file '{home}' of '{text}'")
    try:
        return _import_file(path) if is_file else importlib.import_module(home)
    except ModuleNotFoundError as error:
        if error.name is not None and (home == error.name or home.startswith(f"{error.name}.")):
            raise UsageError(
                f"cannot find the Python module '{home}' of '{text}'; install its package, "
                "or run where it lies, or write path/to/file.py:factory"
            ) from error
        raise ModelError(f"importing '{home}' failed: {one_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise ModelError(f"importing '{home}' failed: {one_line(error)}") from error


def _import_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"cannot import '{path}'")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look their module up by name.
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def _attribute(home: Any, name: str, where: str) -> Any:
    found = home
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"'{where}' has no '{name}'{did_you_mean(part, dir(found))}")
        found = getattr(found, part)
    return found


def _call(found: Any, arguments: list[Any], keywords: dict[str, Any], text: str) -> Any:
    import torch

    if isinstance(found, (torch.nn.Module, torch.export.ExportedProgram)):
        return found
    if not callable(found):
        raise UsageError(
            f"expected a function that gives an nn.Module in '{text}', got {type(found).__name__}"
        )
    try:
        return found(*arguments, **keywords)
    except (Exception, SystemExit) as error:
        raise ModelError(f"the factory '{text}' raised {one_line(error)}") from error


def _accept(made: Any, name: str, text: str) -> Made:
    import torch

    kinds = (torch.nn.Module, torch.export.ExportedProgram)
    if isinstance(made, kinds):
        return Made(made, None, name)
    if isinstance(made, (tuple, list)) and len(made) == 2 and isinstance(made[0], kinds):
        return Made(made[0], made[1], name)
    got = f"a {type(made).__name__}" + (f" of {len(made)}" if isinstance(made, (tuple, list)) else "")
    raise ModelError(f"expected '{text}' to give an nn.Module, or a module and its example inputs; got {got}")


def one_line(error: BaseException) -> str:
    """Return the exception as one line: its kind, its message and where the user's code raised it."""
    message = " ".join(str(error).split())
    where = source_of_error(error)
    return f"{type(error).__name__}{f': {message}' if message else ''}{f' at {where}' if where else ''}"


@contextmanager
def _importable_here() -> Iterator[None]:
    """Let modules of the working directory be imported, as ``python -m`` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
