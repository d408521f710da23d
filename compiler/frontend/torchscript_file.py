"""Reading TorchScript, which torch itself only keeps for old files."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

from compiler.frontend.arguments import Arguments
from compiler.frontend.export import module_of_program, quiet
from compiler.support.errors import ModelError

_FACTORY = "give a factory instead, package.module:factory, that builds the module and loads its weights"


def read_torchscript(path: Path) -> Any:
    """Return the TorchScript module in the file `path`.

    Raises:
        ModelError: the file holds weights only, or a pickled nn.Module, which would run code; or it is
            damaged.
    """
    import torch

    kind = _kind(path)
    if kind == "pickle":
        _refuse_pickle(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.jit.load(str(path), map_location="cpu").eval()
        except Exception as error:
            raise ModelError(f"cannot read '{path}' as TorchScript: {_line(error)}") from error


def _kind(path: Path) -> str:
    """Tell TorchScript (an archive with code) from what torch.save writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        with path.open("rb") as file:
            # Files of torch.save before 1.6 are bare pickles (protocol 2).
            if file.read(2) == b"\x80\x02":
                return "pickle"
        raise ModelError(f"cannot read '{path}': {error}; expected a file of torch.jit.save") from error
    return "script" if any("/code/" in name for name in names) else "pickle"


def _refuse_pickle(path: Path) -> None:
    import torch

    try:
        held = torch.load(str(path), map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"'{path}' holds a pickled Python object (torch.save of a whole module?), and reading it could "
            f"run any code; {_FACTORY}, or save the model with torch.export.save to a .pt2 file"
        ) from error
    count = f"{len(held)} tensors" if isinstance(held, dict) else type(held).__name__
    raise ModelError(f"'{path}' holds weights only ({count}), no model; {_FACTORY}")


def export_torchscript(module: Any, arguments: Arguments, origin: str) -> Any:
    """Convert a TorchScript module to an ExportedProgram with fixed shapes.

    Raises:
        ModelError: torch cannot convert it.
    """
    import torch
    from torch._export.converter import TS2EPConverter

    if arguments.kwargs:
        arguments = _positional(module, arguments)
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        try:
            converted = TS2EPConverter(module, arguments.args, arguments.kwargs).convert()
            # The converter lets every dimension vary; what was given is what is meant.
            fixed = module_of_program(converted)
            return torch.export.export(fixed, arguments.args, arguments.kwargs, strict=False)
        except Exception as error:
            raise ModelError(
                f"torch cannot convert the TorchScript of {origin}: {type(error).__name__}: {_line(error)}; "
                "import the nn.Module that it was made from, or export that with torch.export.save"
            ) from error


def _positional(module: Any, arguments: Arguments) -> Arguments:
    """Pass keywords by position, the only way TorchScript's converter takes them."""
    names = [argument.name for argument in module.forward.schema.arguments[1:]]
    given = dict(zip(names, arguments.args, strict=False)) | arguments.kwargs
    return Arguments(tuple(given[name] for name in names if name in given), {})


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
