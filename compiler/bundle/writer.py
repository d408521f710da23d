"""Writes a bundle: the same bytes for the same contents, and either all of it or nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from compiler.bundle.manifest import Manifest, Part, to_json
from compiler.support.files import atomic_path

MANIFEST = "manifest.json"
SEAL = "kiln bundle; manifest sha256 "
"""The zip's comment: this and the hash of the manifest, which holds the hashes of all else."""

_DATE = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20

Contents = Mapping[str, bytes | Path]
"""The parts by name: their bytes, or the file that holds them."""


def write(path: Path, manifest: Manifest, contents: Contents) -> Manifest:
    """Write `manifest` and `contents` to `path` and return the manifest with its `parts` filled in.

    Raises:
        UsageError: `path` cannot be written, or the disk is full.
    """
    parts = {name: _part(contents[name]) for name in sorted(contents)}
    complete = dataclasses.replace(manifest, parts=parts)
    text = to_json(complete).encode()
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        archive.comment = f"{SEAL}{hashlib.sha256(text).hexdigest()}".encode()
        _add(archive, MANIFEST, text)
        for name in sorted(contents):
            _add(archive, name, contents[name])
    return complete


def _part(source: bytes | Path) -> Part:
    if isinstance(source, bytes):
        return Part(sha256=hashlib.sha256(source).hexdigest(), size=len(source))
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Part(sha256=digest.hexdigest(), size=size)


def _add(archive: zipfile.ZipFile, name: str, source: bytes | Path) -> None:
    info = zipfile.ZipInfo(name, _DATE)
    info.create_system = 3
    info.external_attr = 0o644 << 16
    # Weights do not compress; text does.
    text = name == MANIFEST or name.startswith("sources/")
    info.compress_type = zipfile.ZIP_DEFLATED if text else zipfile.ZIP_STORED
    if isinstance(source, bytes):
        archive.writestr(info, source)
        return
    info.file_size = source.stat().st_size
    with source.open("rb") as file, archive.open(info, "w") as out:
        shutil.copyfileobj(file, out, _CHUNK)
