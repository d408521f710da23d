"""Reads a bundle and trusts nothing in it.

Every part is compared with the hash in the manifest, and the manifest with the hash in the zip's comment.
Nothing is unpickled, nothing is extracted by the names in the archive, and sizes are bounded before bytes
are read. Whatever is wrong is a `BundleError` of one line.
"""

from __future__ import annotations

import errno
import hashlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from compiler.bundle.arrays import from_npy
from compiler.bundle.manifest import Manifest, Part, from_json
from compiler.bundle.writer import MANIFEST, SEAL
from compiler.support.errors import BundleError, UsageError

MAX_MANIFEST = 64 << 20
MAX_COMPRESSED_PART = 256 << 20
MAX_PARTS = 4096
_CHUNK = 1 << 20
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    KeyError,
    OverflowError,
    MemoryError,
)


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose archive and manifest are in order; its parts are checked when they are read."""

    path: Path
    manifest: Manifest

    def read(self, name: str) -> bytes:
        """Return the contents of the part `name`.

        Raises:
            BundleError: the part does not have the size and hash that the manifest says.
        """
        with _opened(self.path) as archive:
            return b"".join(_chunks(archive, name, self.manifest.parts[name]))

    def extract(self, name: str, to: Path) -> None:
        """Write the part `name` to the file `to`, which is removed again if the part is damaged.

        Raises:
            BundleError: the part does not have the size and hash that the manifest says.
            UsageError: `to` cannot be written.
        """
        with _opened(self.path) as archive, _creating(to) as out:
            for chunk in _chunks(archive, name, self.manifest.parts[name]):
                _write(out, chunk, to)

    def golden(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the golden inputs and outputs in signature order; two empty lists if there are none.

        Raises:
            BundleError: a part is damaged or does not hold what the signature says.
        """
        golden, signature = self.manifest.golden, self.manifest.signature
        if golden is None:
            return [], []
        inputs = zip(golden.inputs, signature.inputs, strict=True)
        outputs = zip(golden.outputs, signature.outputs, strict=True)
        return (
            [self._array(name, spec.dtype) for name, spec in inputs],
            [self._array(name, spec.dtype) for name, spec in outputs],
        )

    def _array(self, name: str, dtype: str) -> np.ndarray:
        data = self.read(name)
        try:
            return from_npy(data, dtype, name)
        except BundleError as error:
            raise BundleError(f"cannot use the bundle '{self.path}': {error}") from error

    def verify_parts(self) -> None:
        """Read every part and compare it with its hash.

        Raises:
            BundleError: one is damaged.
        """
        with _opened(self.path) as archive:
            for name, part in self.manifest.parts.items():
                for _ in _chunks(archive, name, part):
                    pass


def read(path: Path) -> Bundle:
    """Open the bundle at `path`: check the archive, read and check the manifest.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        BundleError: it is no bundle, is damaged, was edited, or was made by a newer Kiln.
    """
    with _opened(path) as archive:
        infos = _listing(archive)
        size = infos[MANIFEST].file_size if MANIFEST in infos else -1
        if not 0 <= size <= MAX_MANIFEST:
            raise BundleError("it has no manifest.json" if size < 0 else "its manifest.json is too large")
        text = _bounded(archive, MANIFEST, size)
        manifest = from_json(text)
        _check_seal(archive.comment, text)
        _check_parts(infos, manifest)
    return Bundle(path, manifest)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open the archive; every kind of damage met inside the block becomes a BundleError that names `path`."""
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise BundleError("it is not a Kiln bundle, or was cut short (no zip directory at its end)")
            with zipfile.ZipFile(file) as archive:
                yield archive
    except BundleError as error:
        raise BundleError(f"cannot use the bundle '{path}': {error}") from error
    except OSError as error:
        if error.errno == errno.EINVAL:
            # The archive points to a place before its beginning.
            raise BundleError(f"cannot use the bundle '{path}': it is damaged (wrong offsets)") from error
        raise UsageError(f"cannot read the bundle '{path}': {error.strerror or error}") from error
    except RecursionError as error:
        raise BundleError(f"cannot use the bundle '{path}': it is nested too deeply") from error
    except _DAMAGE as error:
        raise BundleError(f"cannot use the bundle '{path}': it is damaged ({_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _listing(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the entries by name, once none of them can do harm."""
    infos = archive.infolist()
    if len(infos) > MAX_PARTS:
        raise BundleError(f"expected at most {MAX_PARTS} parts, got {len(infos)}")
    names = [info.filename for info in infos]
    if len(set(names)) != len(names):
        raise BundleError("two parts have the same name")
    for info in infos:
        _check_entry(info)
    return {info.filename: info for info in infos}


def _check_entry(info: zipfile.ZipInfo) -> None:
    name = info.filename
    climbs = any(step in ("", ".", "..") for step in name.split("/"))
    if climbs or not name.isprintable() or "\\" in name or ":" in name:
        raise BundleError(f"the part name {name!r} is not allowed")
    kind = (info.external_attr >> 16) & 0o170000
    if kind not in (0, 0o100000):
        raise BundleError(f"the part '{name}' is not a plain file")
    if info.flag_bits & 0x1:
        raise BundleError(f"the part '{name}' is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BundleError(f"the part '{name}' is compressed in an unknown way")
    stored = info.compress_type == zipfile.ZIP_STORED
    if stored and info.file_size != info.compress_size:
        raise BundleError(f"the part '{name}' has two different sizes")
    if not stored and info.file_size > MAX_COMPRESSED_PART:
        raise BundleError(f"the compressed part '{name}' is larger than {MAX_COMPRESSED_PART >> 20} MiB")


def _check_seal(comment: bytes, text: bytes) -> None:
    if comment != f"{SEAL}{hashlib.sha256(text).hexdigest()}".encode():
        raise BundleError("manifest.json was changed after it was written; compile the model again")


def _check_parts(infos: dict[str, zipfile.ZipInfo], manifest: Manifest) -> None:
    listed = {MANIFEST, *manifest.parts}
    if missing := sorted(listed - set(infos)):
        raise BundleError(f"the part '{missing[0]}' is missing")
    if extra := sorted(set(infos) - listed):
        raise BundleError(f"it holds '{extra[0]}', which the manifest does not list")
    for name, part in manifest.parts.items():
        if infos[name].file_size != part.size:
            raise BundleError(f"the part '{name}' has {infos[name].file_size} bytes instead of {part.size}")


def _bounded(archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    with archive.open(name) as file:
        data = file.read(size + 1)
    if len(data) != size:
        raise BundleError(f"the part '{name}' has not the size that the archive says")
    return data


def _chunks(archive: zipfile.ZipFile, name: str, part: Part) -> Iterator[bytes]:
    """Yield the contents of a part; the last chunk comes only after the hash was compared."""
    _check_entry(archive.getinfo(name))
    digest, size, held = hashlib.sha256(), 0, b""
    with archive.open(name) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if size > part.size:
                break
            if held:
                yield held
            held = chunk
    if size != part.size or digest.hexdigest() != part.sha256:
        raise BundleError(f"the part '{name}' is damaged or was changed (its SHA-256 differs)")
    if held:
        yield held


@contextmanager
def _creating(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file; it is removed again if the block fails."""
    try:
        file = path.open("xb")
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror or error}") from error
    try:
        with file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _write(out: IO[bytes], chunk: bytes, path: Path) -> None:
    try:
        out.write(chunk)
        out.flush()
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror or error}") from error


__all__ = ["Bundle", "read"]
