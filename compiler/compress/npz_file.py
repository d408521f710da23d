"""Samples out of a ``.npz`` file, a batch at a time: the file may be larger than memory.

Nothing is unpickled.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from compiler.compress.batches import Batch, Cut
from compiler.support.errors import UsageError

_DAMAGE = (
    ValueError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Header:
    """What an array of the file is, before any of it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool


def read_headers(path: Path) -> dict[str, Header]:
    """Return the headers of all arrays in `path`, by name.

    Raises:
        UsageError: the file cannot be read, or is no ``.npz`` file of numbers.
    """
    with _readable(path), zipfile.ZipFile(path) as archive:
        headers = {}
        for member in archive.namelist():
            with archive.open(member) as stream:
                headers[member.removesuffix(".npy")] = _read_header(stream)
        return headers


def read_batches(path: Path, headers: Mapping[str, Header], cuts: Mapping[str, Cut]) -> Iterator[Batch]:
    """Yield the batches of the arrays in `cuts`, which say how each is cut.

    Raises:
        UsageError: the file cannot be read, or is damaged.
    """
    count = min(cut.count for cut in cuts.values())
    with _readable(path), zipfile.ZipFile(path) as archive, ExitStack() as opened:
        readers = {}
        for name, cut in cuts.items():
            stream = opened.enter_context(archive.open(f"{name}.npy"))
            readers[name] = _array_batches(stream, headers[name], cut)
        for _ in range(count):
            yield {name: next(reader) for name, reader in readers.items()}


def _array_batches(stream: IO[bytes], header: Header, cut: Cut) -> Iterator[np.ndarray]:
    """Yield the batches of one array."""
    _read_header(stream)
    if header.fortran_order or cut.rows is None:
        # Rows that are not stored one after the other cannot be read one after the other.
        whole = _read(stream, header, header.shape[::-1] if header.fortran_order else header.shape)
        whole = whole.T if header.fortran_order else whole
        yield from (cut.batch(whole, number) for number in range(cut.count))
        return
    for number in range(cut.count):
        first, last = cut.bounds(number, header.shape[0])
        yield cut.shaped(_read(stream, header, (last - first, *header.shape[1:])))


def _read_header(stream: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"an array of format {version}")
    shape, fortran_order, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    return Header(shape, dtype, fortran_order)


def _read(stream: IO[bytes], header: Header, shape: tuple[int, ...]) -> np.ndarray:
    wanted = prod(shape) * header.dtype.itemsize
    data = stream.read(wanted)
    if len(data) < wanted:
        raise EOFError("an array ends too early")
    # A bytearray, so that the array may be written to, as torch wants it.
    return np.frombuffer(bytearray(data), header.dtype).reshape(shape)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what a damaged file makes Python raise into an error about the file."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error.strerror or error}") from error
    except _DAMAGE as error:
        raise UsageError(f"expected a .npz file of numbers, got '{path}' ({error})") from error
