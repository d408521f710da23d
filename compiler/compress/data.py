"""Calibration data: from a file, a folder of images, a Python function, memory, or chance.

Whatever it comes from, it gives one mapping of input names to arrays a run, checked, in the order of the
model's signature; it can be gone through again and again, and never lies in memory as a whole unless it
already does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from compiler.compress.batches import Batch, Former
from compiler.compress.facts import DataFacts, Tally, usual_ranges
from compiler.compress.images import ImageTransform, open_folder
from compiler.compress.npz_file import read_batches, read_headers
from compiler.support.errors import InputError, KilnError, UsageError
from compiler.support.signature import Signature

Records = Iterable[tuple[str, Any]]
"""Pairs of where a record comes from, for messages, and the record: see `Former.batches`."""


@dataclass(frozen=True)
class Source:
    """Where data comes from: `origin` for reports, `records` anew at each pass, `length` in batches if known.

    `is_random` tells that it is no data at all, `notes` are for the report.
    """

    origin: str
    records: Callable[[], Records]
    length: int | None = None
    notes: tuple[str, ...] = ()
    is_random: bool = False


class CalibrationData:
    """Batches for a model, each a mapping of input names to arrays.

    Attributes:
        origin: what it was made from, for reports.
        length: how many batches there are, None if that is not known beforehand.
        is_random: whether it is no data at all but random numbers.
    """

    def __init__(
        self,
        signature: Signature,
        source: Source,
        *,
        limit: int | None = None,
        examples: Sequence[np.ndarray] = (),
    ) -> None:
        """Form at most `limit` batches of what `source` gives, compared in range with the `examples`."""
        if limit is not None and limit < 1:
            raise UsageError(f"expected at least 1 sample of calibration data, got a limit of {limit}")
        known = source.length
        self.origin = source.origin
        self.length = known if limit is None or known is None else min(limit, known)
        self.is_random = source.is_random
        self._source, self._limit = source, limit
        self._former = Former(signature)
        self._usual = usual_ranges((spec.name for spec in signature.inputs), examples)

    def __iter__(self) -> Iterator[Batch]:
        """Go through the data from its beginning.

        Raises:
            InputError: there is none, or some cannot be taken by the model.
        """
        empty = True
        for batch in islice(self._batches(), self._limit):
            empty = False
            yield batch
        if empty:
            raise InputError(f"expected calibration data, got none from {self.origin}")

    def _batches(self) -> Iterator[Batch]:
        for where, record in self._source.records():
            yield from self._former.batches(record, where)

    def tally(self) -> Tally:
        """Return what gathers the facts about a pass over this data."""
        return Tally(self._usual)

    def facts(self, tally: Tally) -> DataFacts:
        """Return what is known after a pass that `tally` has seen."""
        notes = (*self._source.notes, *self._former.notes, *tally.notes())
        return DataFacts(self.origin, tally.sha256, tally.batches, self.is_random, notes)


def open_data(
    source: Any,
    signature: Signature,
    *,
    transform: ImageTransform | None = None,
    limit: int | None = None,
    examples: Sequence[np.ndarray] = (),
) -> CalibrationData:
    """Return `source` as calibration data for a model with this signature.

    Args:
        source: the path of a ``.npz`` file or of a folder of images; ``module:function``, which yields
            records; a function without arguments that yields them; a mapping of input names to arrays; an
            array; or anything that gives records each time it is gone through, such as a list or a torch
            DataLoader (one that shuffles makes the order, and with it the hash, another each time). A record
            is a mapping by input name, a tuple or list in order (what follows the inputs, such as labels, is
            left out), or one array; arrays and torch tensors may hold several samples.
        signature: of the model.
        transform: of images.
        limit: the most batches to use.
        examples: inputs in the order of the signature that the data should resemble in range.

    Raises:
        UsageError: there is no such data, or data that can be gone through only once.
        InputError: a file's arrays do not fit the model. What is read later is checked when it is read.
    """
    named = isinstance(source, (str, Path))
    if transform is not None and not (named and Path(source).is_dir()):
        raise UsageError(f"an image transform needs a folder of images, got {_kind(source)}")
    found = _named(source, signature, transform) if named else _given(source)
    return CalibrationData(signature, found, limit=limit, examples=examples)


def _given(source: Any) -> Source:
    """Return data that is in memory, or made by an object that is."""
    origin = _kind(source)
    if isinstance(source, Mapping) or hasattr(source, "__array__"):
        return Source(origin, lambda: [("the data", source)])
    if callable(source) and not hasattr(source, "__iter__"):
        return Source(origin, lambda: _numbered(source, origin))
    if not hasattr(source, "__iter__") and not hasattr(source, "__getitem__"):
        raise UsageError(f"expected calibration data, got {origin}: give a file, a function or a list")
    if hasattr(source, "__next__"):
        raise UsageError(
            f"expected data that can be gone through more than once, got {origin}: "
            "give the function that makes it, or a list"
        )
    return Source(origin, lambda: _numbered(lambda: source, origin))


def _named(source: str | Path, signature: Signature, transform: ImageTransform | None) -> Source:
    """Return data that lies in a file or folder, or that a function named in `source` makes."""
    path = Path(source)
    if path.is_dir():
        return _images(path, signature, transform)
    if path.exists() or path.suffix == ".npz":
        return _npz(path, signature)
    # Only here, as it imports torch.
    from compiler.frontend.factory import find, is_factory_text

    if not is_factory_text(str(source)):
        raise UsageError(
            f"cannot find the calibration data '{source}': give a .npz file, a folder of images or "
            "module:function"
        )
    origin, call = f"'{source}'", find(str(source))
    return Source(origin, lambda: _numbered(call, origin))


def _images(path: Path, signature: Signature, transform: ImageTransform | None) -> Source:
    images = open_folder(path, signature, transform)
    length, left = divmod(len(images.paths), images.batch)
    notes = []
    if transform is None:
        notes.append(f"no transform was given for the images of '{path}'; used is {images.transform}")
    if left:
        notes.append(f"the last {left} images of '{path}' are left out; a batch is {images.batch}")
    return Source(f"{len(images.paths)} images of '{path}'", images.records, length, tuple(notes))


def _npz(path: Path, signature: Signature) -> Source:
    headers, origin = read_headers(path), f"'{path}'"
    cuts = Former(signature).cuts({name: header.shape for name, header in headers.items()}, origin)

    def records() -> Records:
        for number, batch in enumerate(read_batches(path, headers, cuts)):
            yield f"sample {number} of {origin}", batch

    return Source(origin, records, min((cut.count for cut in cuts.values()), default=0))


def _numbered(make: Callable[[], Any], origin: str) -> Records:
    """Yield what the user's code gives, with its number; what fails there is the data's fault."""
    done = 0
    try:
        for record in make():
            yield f"item {done} of {origin}", record
            done += 1
    except KilnError:
        raise
    except (Exception, SystemExit) as error:
        from compiler.frontend.factory import one_line

        raise InputError(f"{origin} failed after {done} items: {one_line(error)}") from error


def _kind(source: Any) -> str:
    """Name data that has no name."""
    return f"'{source}'" if isinstance(source, (str, Path)) else f"the {type(source).__name__} given"


def random_data(
    signature: Signature,
    count: int,
    seed: int = 0,
    *,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    sizes: Mapping[str, int] | None = None,
    examples: Sequence[np.ndarray] = (),
    needed: bool = True,
) -> CalibrationData:
    """Return `count` batches of random numbers for want of data; `is_random` tells so.

    `needed` says whether ranges are taken from them, or only what a quantization costs is measured.
    `ranges`, `sizes` and `examples` are those of `compiler.frontend.model.Model`.
    """

    def records() -> Records:
        from compiler.frontend.random_inputs import random_inputs

        for number in range(count):
            arrays = random_inputs(signature, seed + number, ranges=ranges, sizes=sizes, examples=examples)
            yield f"random sample {number}", dict(zip(names, arrays, strict=True))

    names = [spec.name for spec in signature.inputs]
    note = "the calibration data is random: ranges of activations, and with them accuracy, are a guess"
    if not needed:
        note = "there is no data: outputs were compared on random inputs, which may say little"
    origin = f"{count} random samples of seed {seed}"
    return CalibrationData(signature, Source(origin, records, count, (note,), is_random=True), limit=count)
