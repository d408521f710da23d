"""Reading ``.pt2`` files without running what is inside them.

`torch.export.load` unpickles freely and evaluates the text of symbolic sizes, so an edited file could run
any code. Here weights are read with ``weights_only=True``, pickled objects are refused, and symbolic
sizes must be arithmetic over symbols before torch sees them.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compiler.support.errors import ModelError

_PICKLED = ("opaque_obj", "custom_obj")
_NAMES = frozenset(
    (
        "Symbol",
        "Integer",
        "Float",
        "Rational",
        "Mul",
        "Add",
        "Pow",
        "Mod",
        "Max",
        "Min",
        "FloorDiv",
        "CleanDiv",
        "CeilDiv",
        "PythonMod",
        "ModularIndexing",
        "Where",
        "TruncToInt",
        "CeilToInt",
        "FloorToInt",
        "IntTrueDiv",
        "FloatTrueDiv",
        "PowByNatural",
        "FloatPow",
        "Eq",
        "Ne",
        "Gt",
        "Ge",
        "Lt",
        "Le",
        "Equality",
        "Unequality",
        "StrictGreaterThan",
        "GreaterThan",
        "StrictLessThan",
        "LessThan",
        "And",
        "Or",
        "Not",
        "Identity",
        "ToFloat",
        "RoundToInt",
        "Half",
        "One",
        "Zero",
        "NegativeOne",
    )
)
_NUMBER = re.compile(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?")
_ARITHMETIC = (
    ast.Expression,
    ast.Name,
    ast.Load,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.BoolOp,
    ast.operator,
    ast.unaryop,
    ast.cmpop,
    ast.boolop,
    ast.keyword,
)


def read_program(path: Path) -> Any:
    """Return the torch ExportedProgram in the file `path`.

    Raises:
        ModelError: the file is damaged, is not an exported program, or holds pickled objects.
    """
    import torch

    _examine(path)
    try:
        with _weights_only(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(str(path))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"cannot read '{path}' as a .pt2 file of torch.export.save: {reason}") from error
    _forget_derived_sizes(program)
    return program


def _forget_derived_sizes(program: Any) -> None:
    """Drop ranges of sizes such as ``2*h`` that torch wrongly restores as symbols; decomposing would fail."""
    import sympy  # type: ignore[import-untyped]

    for node in program.graph.nodes:
        mode = getattr(node.meta.get("val"), "fake_mode", None)
        if mode is not None and mode.shape_env is not None:
            ranges = mode.shape_env.var_to_range
            for size in [size for size in ranges if not isinstance(size, sympy.Symbol)]:
                del ranges[size]


def _examine(path: Path) -> None:
    """Refuse an archive that is damaged or that torch could only read by running code."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            texts = [archive.read(name) for name in names if name.endswith(".json")]
    except Exception as error:  # zipfile raises many kinds on damaged data
        reason = str(error).strip() or type(error).__name__
        raise ModelError(
            f"expected a .pt2 file of torch.export.save, got '{path}', which is damaged: {reason}"
        ) from error
    pickled = [name for name in names if any(mark in name for mark in _PICKLED)]
    if pickled:
        raise ModelError(
            f"'{path}' holds pickled Python objects ({pickled[0]}), and reading them could run any code; "
            "export the model without custom objects, or give the nn.Module itself"
        )
    for text in texts:
        for expression in _expressions(_parse(path, text)):
            if not _is_arithmetic(expression):
                raise ModelError(
                    f"'{path}' holds a size that is not arithmetic: {expression[:80]!r}; "
                    "write the file again with torch.export.save"
                )


def _parse(path: Path, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"'{path}' is damaged: {error}") from error


def _expressions(value: Any) -> Iterator[str]:
    """Give every symbolic size below `value`; torch hands these texts to sympy, which evaluates them."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if isinstance(item.get("expr_str"), str):
                yield item["expr_str"]
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _is_arithmetic(text: str) -> bool:
    """Whether `text` is only numbers, symbols, operators and sympy's arithmetic classes."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return False
    words = {id(word) for node in ast.walk(tree) if isinstance(node, ast.Call) for word in _words(node)}
    return all(_allowed(node, words) for node in ast.walk(tree))


def _words(call: ast.Call) -> list[ast.expr]:
    """Give the strings that may stand in `call`: the name of a symbol, the digits of a float."""
    if not isinstance(call.func, ast.Name) or not call.args:
        return []
    first = call.args[0]
    if not isinstance(first, ast.Constant) or not isinstance(first.value, str):
        return []
    pattern = {"Symbol": re.compile(r"\w+"), "Float": _NUMBER}.get(call.func.id)
    return [first] if pattern is not None and pattern.fullmatch(first.value) else []


def _allowed(node: ast.AST, words: set[int]) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _NAMES
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (bool, int, float)) or id(node) in words
    return isinstance(node, _ARITHMETIC)


@contextmanager
def _weights_only() -> Iterator[None]:
    """Make every ``torch.load`` inside the block refuse anything but tensors, and keep torch's log quiet."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(disabled)
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
