"""A quantized model as a file (``.kq``), before it is compiled for a target.

An ordinary zip: ``model.json`` is TVM's IR, ``about.json`` all else that is known, ``arrays/*.npy`` what a
library is checked with. Nothing is unpickled. The IR is read back by the TVM that wrote it; another version
may refuse it.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from compiler.frontend.model import Model, Quantized
from compiler.support.errors import ModelError, UsageError
from compiler.support.files import atomic_path
from compiler.support.signature import Signature

SUFFIX = ".kq"

_FORMAT = 1
_DATE = (1980, 1, 1, 0, 0, 0)
_IR, _ABOUT = "model.json", "about.json"
_GROUPS = ("inputs", "exact", "rounded")
_DAMAGE = (
    ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError, NotImplementedError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class _About:
    """What is known of the model: `probes` counts the sets of arrays, `examples` its example inputs."""

    format: int
    kiln: str
    tvm: str
    origin: str
    signature: Signature
    notes: tuple[str, ...]
    ranges: dict[str, tuple[float, float]]
    sizes: dict[str, int]
    report: dict[str, Any]
    probes: int
    examples: int
    layers: dict[str, str] = field(default_factory=dict)


def write_model(model: Model, path: Path) -> None:
    """Write a quantized model to `path`, whole or not at all.

    Raises:
        UsageError: `path` cannot be written.
    """
    from compiler import __version__

    assert model.quantized is not None
    about = _About(
        format=_FORMAT,
        kiln=__version__,
        tvm=importlib.metadata.version("apache-tvm"),
        origin=model.origin,
        signature=model.signature,
        notes=tuple(model.notes),
        ranges={name: (float(low), float(high)) for name, (low, high) in model.ranges.items()},
        sizes=dict(model.sizes),
        report=dict(model.quantized.report),
        probes=len(model.quantized.inputs),
        examples=len(model.examples),
        layers=dict(model.layers),
    )
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        _add(archive, _ABOUT, json.dumps(dataclasses.asdict(about), indent=1, allow_nan=False).encode())
        _add(archive, _IR, tvm.ir.save_json(model.mod).encode())
        for name, array in _arrays(model):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(array, order="C"), allow_pickle=False)
            _add(archive, name, buffer.getvalue())


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _DATE)
    info.create_system, info.external_attr = 3, 0o644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, data)


def _arrays(model: Model) -> list[tuple[str, np.ndarray]]:
    assert model.quantized is not None
    found = [(f"arrays/example_{i}.npy", array) for i, array in enumerate(model.examples)]
    for group in _GROUPS:
        for number, arrays in enumerate(getattr(model.quantized, group)):
            found += [(_name(group, number, i), array) for i, array in enumerate(arrays)]
    return found


def _name(group: str, number: int, position: int) -> str:
    return f"arrays/{group}_{number}_{position}.npy"


def read_model(path: Path) -> Model:
    """Read what `write_model` wrote.

    Raises:
        UsageError: there is no such file.
        ModelError: it is damaged, or of another version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            about = _about(archive.read(_ABOUT), path)
            return _model(archive, about, path)
    except OSError as error:
        raise UsageError(f"cannot read the model '{path}': {error.strerror or error}") from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"expected a quantized model (.kq) in '{path}', got {reason}") from error


def _about(data: bytes, path: Path) -> _About:
    from pydantic import TypeAdapter

    version = json.loads(data).get("format")
    if version != _FORMAT:
        raise ModelError(
            f"'{path}' has format {version}, and this Kiln reads {_FORMAT}: quantize the model again"
        )
    about: _About = TypeAdapter(_About).validate_json(data)
    return about


def _model(archive: zipfile.ZipFile, about: _About, path: Path) -> Model:
    installed = importlib.metadata.version("apache-tvm")
    try:
        mod = tvm.ir.load_json(archive.read(_IR).decode())
    except Exception as error:
        if installed == about.tvm:
            raise ValueError(f"no IR of TVM ({error})") from error
        raise ModelError(
            f"'{path}' was written with TVM {about.tvm}, and TVM {installed} cannot read it: quantize again"
        ) from error
    if not isinstance(mod, tvm.IRModule):
        raise ValueError(f"a {type(mod).__name__} in place of a module")
    inputs, outputs = about.signature.inputs, about.signature.outputs
    groups = {
        group: tuple(
            _read(archive, [_name(group, number, i) for i in range(len(specs))], specs)
            for number in range(about.probes)
        )
        for group, specs in zip(_GROUPS, (inputs, outputs, outputs), strict=True)
    }
    examples = [f"arrays/example_{i}.npy" for i in range(about.examples)]
    return Model(
        mod=mod,
        signature=about.signature,
        origin=about.origin,
        examples=_read(archive, examples, inputs),
        notes=about.notes,
        ranges=about.ranges,
        sizes=about.sizes,
        quantized=Quantized(about.report, **groups),
        layers=about.layers,
    )


def _read(archive: zipfile.ZipFile, names: Sequence[str], specs: Sequence[Any]) -> tuple[np.ndarray, ...]:
    arrays = []
    for name, spec in zip(names, specs, strict=bool(names)):
        with archive.open(name) as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
        # numpy writes types that it does not know, such as bfloat16, as bytes.
        arrays.append(array.view(_dtype(spec.dtype)) if array.dtype.kind == "V" else array)
    return tuple(arrays)


def _dtype(name: str) -> Any:
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, name))
