"""Inputs and outputs of `kiln run` as .npz and .npy files. Nothing is unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from compiler.bundle.arrays import to_npy
from compiler.support.dtypes import numpy_dtype
from compiler.support.errors import InputError, UsageError, did_you_mean
from compiler.support.files import atomic_path
from compiler.support.signature import Signature

_WIDER = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
"""Types that .npy files cannot hold; they travel as float32, which holds all their values."""

_UNREADABLE = (
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    KeyError,
    NotImplementedError,
    SyntaxError,
)


def read_inputs(texts: Sequence[str], signature: Signature) -> dict[str, np.ndarray]:
    """Read inputs by name from what the user gave: FILE.npz, NAME=FILE.npy or FILE.npy.

    Raises:
        UsageError: no inputs, or a file that cannot be read.
        InputError: an array without a name where the model has several inputs.
    """
    names = [spec.name for spec in signature.inputs]
    if not texts and names:
        wanted = "; ".join(map(str, signature.inputs))
        raise UsageError(f"expected --input FILE.npz with these arrays: {wanted}")
    feeds: dict[str, np.ndarray] = {}
    for text in texts:
        for name, array in _read(text, names).items():
            if name in feeds:
                raise InputError(f"input '{name}' is given twice, again in '{text}'")
            feeds[name] = array
    for spec in signature.inputs:
        if spec.dtype in _WIDER and spec.name in feeds and feeds[spec.name].dtype == np.float32:
            feeds[spec.name] = feeds[spec.name].astype(numpy_dtype(spec.dtype))
    return feeds


def _read(text: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    name, equals, rest = text.partition("=")
    if equals and not Path(text).exists():
        if name not in names:
            raise InputError(
                f"there is no input '{name}'{did_you_mean(name, names)} (inputs: {', '.join(names)})"
            )
        path = Path(rest)
    else:
        name, path = "", Path(text)
    loaded = _load(path)
    if isinstance(loaded, dict):
        if name and name not in loaded:
            raise InputError(f"'{path}' holds no array '{name}' (it has: {', '.join(loaded) or 'none'})")
        return {name: loaded[name]} if name else loaded
    if name:
        return {name: loaded}
    if len(names) != 1:
        raise InputError(f"'{path}' holds one array and the model has {len(names)} inputs; write NAME={path}")
    return {names[0]: loaded}


def _load(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error.strerror or error}") from error
    except _UNREADABLE as error:
        raise UsageError(f"expected a .npz or .npy file of numbers, got '{path}' ({error})") from error


def write_outputs(path: Path, outputs: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name to a .npz file, whole or not at all.

    Raises:
        UsageError: `path` cannot be written, or the disk is full.
    """
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in outputs.items():
            plain = array.astype(np.float32) if array.dtype.name in _WIDER else array
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), to_npy(plain))


def summarize(array: np.ndarray) -> str:
    """Return shape, dtype and the range of the values in one line."""
    shape = "x".join(map(str, array.shape)) or "scalar"
    if not array.size:
        return f"{shape} {array.dtype}, empty"
    wide = array.astype(np.float64)
    text = f"{shape} {array.dtype}, min {wide.min():.6g}, max {wide.max():.6g}, mean {wide.mean():.6g}"
    return text if array.ndim != 2 or array.shape[0] != 1 else f"{text}, greatest at {int(wide.argmax())}"
