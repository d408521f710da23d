"""Statistics in a file: what was observed once serves other methods and budgets, and other targets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compiler.compress.calibrate import Run, Statistics, calibrate
from compiler.compress.data import CalibrationData
from compiler.compress.observers import Observer
from compiler.support.errors import InputError
from compiler.support.progress import note

_COMPARED_ON_NOISE = (
    "ranges are those of saved statistics; outputs were compared on random inputs, for want of data"
)


def saved_or_observed(
    path: Path | None, mod: tvm.IRModule, run: Run, data: CalibrationData, observers: Mapping[str, Observer]
) -> Statistics:
    """Return the statistics in the file `path`; where it is not there, observe and write it.

    Args:
        path: the file (``.npz``), or None to observe and keep nothing.
        mod: the model that is observed.
        run: gives what `observers` observe, see `compiler.compress.calibrate.watch`.
        data: what the statistics have to be of, unless it is random: then there was none to compare with.
        observers: by the name of the tensor they observe.

    Raises:
        UsageError: `path` cannot be read or written.
        InputError: the statistics are of other data, another model or other values of it.
    """
    if path is None or not observers:
        return calibrate(run, data, observers)
    model = fingerprint(mod, observers)
    if not path.exists():
        found = calibrate(run, data, observers)
        Statistics(found.observers, found.data, model).save(path)
        note(f"wrote statistics of {found.data.batches} batches to {path}")
        return found
    found = Statistics.load(path)
    if found.model != model:
        raise InputError(
            f"the statistics in '{path}' are of another model, or of other values of this one, as a recipe "
            "that skips other layers observes; remove the file, or name another"
        )
    if not data.is_random:
        _require_same(path, found, data)
    note(f"statistics of {found.data.batches} batches of {found.data.origin} are taken from {path}")
    if not data.is_random:
        return found
    facts = replace(found.data, notes=(*found.data.notes, _COMPARED_ON_NOISE))
    return replace(found, data=facts)


def _require_same(path: Path, found: Statistics, data: CalibrationData) -> None:
    """Go through the data, without the model, to see that the statistics are of it."""
    tally = data.tally()
    for batch in data:
        tally.add(batch)
    if tally.sha256 != found.data.sha256:
        raise InputError(
            f"the statistics in '{path}' are of other data ({found.data.origin}, {found.data.batches} "
            f"batches) than {data.origin} ({tally.batches} batches); remove the file, or name another"
        )


def fingerprint(mod: tvm.IRModule, observers: Mapping[str, Observer]) -> str:
    """Return a hash of the constants of `mod`, and of what is observed of which values."""
    digest = hashlib.sha256()
    for name, observer in observers.items():
        digest.update(f"{name}:{observer.channel_axis};".encode())

    def visit(expr: Any) -> None:
        if isinstance(expr, tvm.ir.GenericConst) and isinstance(expr.value, tvm.runtime.Tensor):
            array = expr.value.numpy()
            digest.update(f"{array.dtype}:{array.shape};".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        elif isinstance(expr, tvm.ir.Call):
            digest.update(str(expr.op).encode())

    relax.analysis.post_order_visit(mod["main"], visit)
    return digest.hexdigest()
