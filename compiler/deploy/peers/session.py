"""What a runtime under measurement is: a model made ready, with its inputs in place.

A peer is a module of this folder with

    PACKAGES: what must be importable at any precision
    ARTIFACT: the file of the workload that it reads ("onnx", "torchscript" or "bundle"), or None if it
        loads the user's own module
    variants(workload) -> settings by name, each a function that makes a `Session`

The worker measures every setting for a moment and keeps the fastest that is right: each peer is shown at its
best. At "int8" a peer quantizes by its own tools, with the workload's samples.
"""

from __future__ import annotations

import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compiler.compress.facts import DataFacts

PRECISIONS = ("fp32", "int8", "bf16")
"""Precisions that Kiln and its peers are compared at."""


class Session(ABC):
    """A compiled model that runs on inputs that are in place, from host memory to host memory.

    A new session has the workload's own inputs.
    """

    @abstractmethod
    def feed(self, arrays: list[np.ndarray]) -> None:
        """Put `arrays`, shaped and ordered as the original's inputs, in place of the present ones."""

    @abstractmethod
    def run(self) -> Any:
        """Run once and wait for the result. This is what is timed."""

    @abstractmethod
    def outputs(self) -> list[np.ndarray]:
        """Return the outputs of the last run, flat, in the order of the original model."""

    def profile(self, runs: int) -> dict[str, Any]:
        """Return where the time of a run goes, as plain data.

        Raises:
            PeerError: this runtime cannot tell; only Kiln is asked.
        """
        raise PeerError("it does not tell where its time goes")


@dataclass(frozen=True)
class Workload:
    """What all runtimes compute, as files in `folder`.

    `artifacts` maps "module", "onnx", "torchscript" and "bundle" to file names, `troubles` the ones that
    could not be made to the reason. `source`, `inputs`, `calibrate` and `transform` are the user's texts,
    `threads` the number of threads of each runtime, `names` the model's inputs in order. `data` is what is
    known about the calibration data, None where there is none.
    """

    folder: Path
    source: str
    threads: int
    precision: str = "fp32"
    inputs: tuple[str, ...] = ()
    calibrate: str | None = None
    transform: str | None = None
    names: tuple[str, ...] = ()
    artifacts: dict[str, str] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    data: DataFacts | None = None

    def arrays(self) -> list[np.ndarray]:
        """Return the inputs that are measured, in the order of the model's signature."""
        return _read(self.folder / "inputs.npz")

    def reference(self) -> list[np.ndarray]:
        """Return the outputs that the original gives for `arrays`."""
        return _read(self.folder / "reference.npz")

    def samples(self) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
        """Yield inputs to calibrate and to judge with, each with the outputs that the original gives.

        They lie on disk, one at a time comes into memory. Without any it is `arrays`.
        """
        for folder in sorted(self.folder.glob("sample-*")) or [self.folder]:
            yield _read(folder / "inputs.npz"), _read(folder / "reference.npz")

    def path(self, artifact: str) -> Path:
        """Return the file of `artifact`.

        Raises:
            PeerError: it could not be made from this model.
        """
        if artifact not in self.artifacts:
            reason = self.troubles.get(artifact, f"the model has no {artifact} form")
            raise PeerError(reason)
        return self.folder / self.artifacts[artifact]

    def save(self) -> None:
        """Write the description into its folder, for the worker processes."""
        text = json.dumps(asdict(self), default=str, indent=1)
        (self.folder / "workload.json").write_text(text, encoding="utf-8")

    @classmethod
    def open(cls, folder: Path) -> Workload:
        """Read what `save` wrote."""
        fields = json.loads((folder / "workload.json").read_text(encoding="utf-8"))
        fields.update(folder=folder, inputs=tuple(fields["inputs"]), names=tuple(fields["names"]))
        if fields["data"] is not None:
            fields["data"] = DataFacts(**{**fields["data"], "notes": tuple(fields["data"]["notes"])})
        return cls(**fields)


class PeerError(Exception):
    """A peer cannot take part; the message says why, in one line."""


Variants = dict[str, Callable[[], Session]]


def require(*packages: str) -> None:
    """Raise a `PeerError` that names those of `packages` that are not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise PeerError(f"not installed: {', '.join(missing)} (pip install 'kiln-compiler[peers]')")


def write_pair(folder: Path, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> None:
    """Write inputs and the original's outputs into `folder`, for a `Workload` to read back in order."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "inputs.npz", inputs)
    _write(folder / "reference.npz", outputs)


def _write(path: Path, arrays: list[np.ndarray]) -> None:
    np.savez(path, **{f"{i:04d}": array for i, array in enumerate(arrays)})  # type: ignore[arg-type]


def _read(path: Path) -> list[np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return [archive[name] for name in sorted(archive.files)]


def in_order(arrays: list[np.ndarray], names: tuple[str, ...], wanted: list[str]) -> list[np.ndarray]:
    """Return the arrays of the inputs that a converted model kept, in its own order `wanted`.

    A converter may drop an input that the model does not use, and may rename all of them.

    Raises:
        PeerError: the names do not say which inputs are meant.
    """
    by_name = dict(zip(names, arrays, strict=True))
    if all(name in by_name for name in wanted):
        return [by_name[name] for name in wanted]
    if len(wanted) == len(arrays):
        return arrays
    raise PeerError(f"its converted model takes {len(wanted)} inputs, the original {len(arrays)}")
