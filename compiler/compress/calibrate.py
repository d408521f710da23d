"""Calibration: run the model on data, and keep statistics of what it computes inside."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from compiler.compress.data import CalibrationData
from compiler.compress.facts import DataFacts
from compiler.compress.observers import Observer
from compiler.support.errors import InputError, UsageError
from compiler.support.files import atomic_path
from compiler.support.progress import Progress, note

Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]
"""Computes the observed tensors of a model from its inputs, in the order of its signature."""


class Watching(Protocol):
    """Keeps something of the values of one tensor."""

    def update(self, values: np.ndarray) -> None:
        """Take in one array."""


_FORMAT = 3


@dataclass(frozen=True, eq=False)
class Statistics(Mapping[str, Observer]):
    """What was observed of each tensor, by its name, and on which data.

    `model` is a hash of what was observed, empty where nobody asked for one.
    """

    observers: Mapping[str, Observer]
    data: DataFacts
    model: str = ""

    def __getitem__(self, name: str) -> Observer:
        return self.observers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.observers)

    def __len__(self) -> int:
        return len(self.observers)

    def require(self, names: Iterable[str]) -> None:
        """Make sure that all tensors of a model are there.

        Raises:
            InputError: one is not; the statistics are those of another model.
        """
        if missing := [name for name in names if name not in self.observers]:
            raise InputError(
                f"the statistics lack {len(missing)} of the model's tensors, the first '{missing[0]}': "
                "they are of another model or version of it; calibrate again"
            )

    def save(self, path: Path) -> None:
        """Write all to a ``.npz`` file of plain arrays, whole or not at all.

        Raises:
            UsageError: `path` cannot be written.
        """
        arrays: dict[str, np.ndarray] = {
            "format": np.array(_FORMAT),
            "names": np.array(list(self.observers), dtype=np.str_),
            "model": np.array(self.model),
            "origin": np.array(self.data.origin),
            "sha256": np.array(self.data.sha256),
            "batches": np.array(self.data.batches),
            "is_random": np.array(self.data.is_random),
            "notes": np.array(self.data.notes, dtype=np.str_),
        }
        # Numbers for names: those of tensors need not be names of files.
        for number, observer in enumerate(self.observers.values()):
            arrays |= {f"{number}/{field}": array for field, array in observer.to_arrays().items()}
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array(stream, array, allow_pickle=False)

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """Read what `save` wrote; nothing is unpickled.

        Raises:
            UsageError: `path` cannot be read, or holds no statistics of this version of Kiln.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            if arrays["format"] != _FORMAT:
                raise UsageError(
                    f"expected statistics of format {_FORMAT} in '{path}', got {arrays['format']}: "
                    "they are of another version of Kiln; calibrate again"
                )
            return cls._from_arrays(arrays)
        except OSError as error:
            raise UsageError(f"cannot read '{path}': {error.strerror or error}") from error
        except _UNREADABLE as error:
            raise UsageError(f"expected a file of calibration statistics, got '{path}' ({error})") from error

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Statistics:
        observers = {}
        for number, name in enumerate(arrays["names"].tolist()):
            prefix = f"{number}/"
            own = {key[len(prefix) :]: array for key, array in arrays.items() if key.startswith(prefix)}
            observers[name] = Observer.from_arrays(own)
        data = DataFacts(
            str(arrays["origin"]),
            str(arrays["sha256"]),
            int(arrays["batches"]),
            bool(arrays["is_random"]),
            tuple(arrays["notes"].tolist()),
        )
        return cls(observers, data, str(arrays["model"]))


_UNREADABLE = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    EOFError,
    SyntaxError,
    NotImplementedError,
    InputError,
    zipfile.BadZipFile,
    zlib.error,
)


def calibrate(
    run: Run, data: CalibrationData, observers: Mapping[str, Observer], *, remark: bool = True
) -> Statistics:
    """Run the model on all of `data`, and have each observer look at its tensor.

    See `watch`.
    """
    return Statistics(observers, watch(run, data, observers, remark=remark))


def watch(
    run: Run, data: CalibrationData, observers: Mapping[str, Watching], *, remark: bool = True
) -> DataFacts:
    """Run the model on all of `data`, have each observer look at its tensor, and say what the data was.

    Args:
        run: gives as many arrays as there are observers, in their order.
        data: goes through the model once, batch by batch; nothing of it is kept.
        observers: by the name of the tensor they observe; they are updated.
        remark: say what is remarkable about the data; not needed where it was gone through before.

    Raises:
        InputError: the data is empty or cannot be taken by the model, or the model computes NaN or infinity.
    """
    tally = data.tally()
    progress = Progress("sample", data.length)
    for batch in data:
        tally.add(batch)
        arrays = run(list(batch.values()))
        for (name, observer), array in zip(observers.items(), arrays, strict=True):
            try:
                observer.update(array)
            except InputError as error:
                raise InputError(
                    f"the model's tensor '{name}' cannot be quantized: {error} (sample {tally.batches - 1} "
                    f"of {data.origin}); look at that sample, or keep the layer in float"
                ) from error
        progress.done(tally.batches)
    facts = data.facts(tally)
    for text in facts.notes if remark else ():
        note(text)
    return facts
