"""A model that was just compiled: called like the original, saved as a bundle."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compiler.bundle import Manifest, write
from compiler.deploy.session import Session
from compiler.support.errors import UsageError
from compiler.support.files import remove_folder
from compiler.support.signature import Signature


class CompiledModel:
    """What `compiler.compile` returns.

    Called with numpy arrays or torch tensors, by position or name, it gives the original model's outputs
    (see `compiler.deploy.Session`). `manifest` tells all about it; `session` is None where the target is
    not this machine.
    """

    def __init__(
        self,
        session: Session | None,
        manifest: Manifest,
        contents: Mapping[str, bytes | Path],
        folder: Path,
        reason: str = "",
    ) -> None:
        """Own `folder`, which holds the files among `contents`; `reason` says why there is no session."""
        self.session = session
        self.manifest = manifest
        self._contents = dict(contents)
        self._reason = reason
        weakref.finalize(self, remove_folder, folder)

    @property
    def signature(self) -> Signature:
        """Names, shapes and dtypes of inputs and outputs."""
        return self.manifest.signature

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs for these inputs, nested as the original's.

        Raises:
            InputError: a wrong name, number, shape or dtype.
            UsageError: the model was compiled for another machine.
        """
        if self.session is None:
            name = self.manifest.target.name
            raise UsageError(
                f"a model compiled for '{name}' does not run here: {self._reason}; save() it for there"
            )
        return self.session(*args, **kwargs)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the bundle to `path`, whole or not at all, and return the path.

        Raises:
            UsageError: `path` cannot be written, or the disk is full.
        """
        write(Path(path), self.manifest, self._contents)
        return Path(path)
