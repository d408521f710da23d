"""The samples of a benchmark below float32: what peers are calibrated with, and all are judged with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice

import numpy as np

from compiler.compress.data import CalibrationData, open_data, random_data
from compiler.compress.images import ImageTransform
from compiler.deploy.peers.session import Workload, write_pair
from compiler.support.signature import Signature, TensorSpec

MOST = 256
"""The most samples that are used of the user's data."""

RANDOM = 8
"""Samples of random numbers, for want of data."""

Run = Callable[[list[np.ndarray]], list[np.ndarray]]
"""Computes the outputs of the original."""


def write_samples(workload: Workload, examples: list[np.ndarray], run: Run) -> Workload:
    """Write inputs and the original's outputs; what is measured is the first sample, in float32 the example.

    Raises:
        UsageError: there is no such data.
        InputError: the model cannot take it.
    """
    data = _open(workload, examples)
    if data is None:
        write_pair(workload.folder, examples, run(examples))
        return workload
    tally, first = data.tally(), None
    for number, batch in enumerate(islice(data, MOST)):
        tally.add(batch)
        pair = list(batch.values()), run(list(batch.values()))
        write_pair(workload.folder / f"sample-{number:04d}", *pair)
        first = first or pair
    assert first is not None  # data that holds nothing is an error
    write_pair(workload.folder, *first)
    facts = data.facts(tally)
    if (data.length or 0) > MOST:
        facts = replace(facts, notes=(*facts.notes, f"of {data.length} samples the first {MOST} are used"))
    return replace(workload, data=facts)


def _open(workload: Workload, examples: list[np.ndarray]) -> CalibrationData | None:
    """Return the data that the precision needs and the user gave; without any, random numbers for int8."""
    if workload.precision == "fp32":
        return None
    signature = _signature(workload.names, examples)
    if workload.calibrate is not None:
        transform = None if workload.transform is None else ImageTransform.parse(workload.transform)
        return open_data(workload.calibrate, signature, transform=transform, examples=examples)
    return random_data(signature, RANDOM, examples=examples) if workload.precision == "int8" else None


def _signature(names: Iterable[str], examples: list[np.ndarray]) -> Signature:
    """Return the inputs at the shapes that are measured."""
    pairs = zip(names, examples, strict=True)
    return Signature(tuple(TensorSpec(name, a.shape, a.dtype.name) for name, a in pairs), outputs=())
