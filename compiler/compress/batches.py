"""From what users have to what a model takes: one array for each input, of its shape and dtype, and checked.

An array may hold more than one batch. For an input of shape 1x3x8x8,

    (1, 3, 8, 8)      is one batch
    (3, 8, 8)         is one batch without its axis
    (64, 3, 8, 8)     is 64 batches, as for any other first extent: a multiple of it is as many batches
    (64, 1, 3, 8, 8)  is 64 batches along an axis of samples

A symbolic dimension that comes first in every input and output is that of batches, and is cut to the least
batch that the model takes. Any other symbolic dimension takes what there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.support.dtypes import numpy_dtype
from compiler.support.errors import InputError, did_you_mean
from compiler.support.signature import Dim, Signature, TensorSpec

Batch = dict[str, np.ndarray]
"""The inputs of one run by name, in the order of the signature."""


@dataclass(frozen=True)
class Cut:
    """How an array is cut into `count` batches.

    `rows` along its first axis make a batch (the last batch takes those that are left), None takes the array
    as it is. A batch may have an axis more than its rows (`adds`), or one less (`drops`).
    """

    count: int
    rows: int | None = None
    adds: bool = False
    drops: bool = False

    def bounds(self, number: int, extent: int) -> tuple[int, int]:
        """Return the first row of batch `number` and the one behind its last, of `extent` rows in all."""
        rows = self.rows or extent
        return number * rows, extent if number == self.count - 1 else (number + 1) * rows

    def batch(self, array: np.ndarray, number: int) -> np.ndarray:
        """Return batch `number` of `array`, as a view."""
        if self.rows is not None:
            first, last = self.bounds(number, array.shape[0])
            array = array[first:last]
        return self.shaped(array)

    def shaped(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of a batch with as many axes as the input has."""
        if self.drops:
            # Not rows[0], which is no array where there is but one axis.
            return rows.reshape(rows.shape[1:])
        return rows[None] if self.adds else rows


class Former:
    """Forms the batches of a model with this signature.

    `notes` grows by what the user should know, such as values that were not used.
    """

    def __init__(self, signature: Signature) -> None:
        self.notes: dict[str, None] = {}
        self._signature = signature
        self._names = [spec.name for spec in signature.inputs]
        self._symbol = _batch_symbol(signature)

    def batches(self, record: Any, where: str) -> Iterator[Batch]:
        """Yield the batches in `record`: a mapping by input name, a tuple or list in order, or one array.

        `where` tells an error where the record comes from.

        Raises:
            InputError: names, shapes, dtypes or values that the model cannot take.
        """
        arrays = self._named(record, where)
        cuts = self.cuts({name: array.shape for name, array in arrays.items()}, where)
        count = next(iter(cuts.values())).count if cuts else 1
        for number in range(count):
            place = where if count == 1 else f"sample {number} of {where}"
            yield self._checked({name: cuts[name].batch(arrays[name], number) for name in arrays}, place)

    def cuts(self, shapes: Mapping[str, tuple[int, ...]], where: str) -> dict[str, Cut]:
        """Return how arrays of these shapes are cut, in the order of the signature.

        Raises:
            InputError: a name or shape does not fit, or the inputs hold different numbers of batches.
        """
        self._check_names(shapes, where)
        cuts = {spec.name: self._cut(spec, shapes[spec.name], where) for spec in self._signature.inputs}
        counts = {name: cut.count for name, cut in cuts.items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{count} for '{name}'" for name, count in counts.items())
            raise InputError(f"expected as many samples for each input, got {listed} ({where})")
        return cuts

    def _named(self, record: Any, where: str) -> Batch:
        if isinstance(record, Mapping):
            self._check_names(record, where)
            return {name: _array(record[name], f"input '{name}'", where) for name in self._names}
        values = record if _is_sequence(record) else (record,)
        wanted = len(self._names)
        if len(values) < wanted:
            names = ", ".join(self._names)
            raise InputError(f"expected {wanted} values ({names}), got {len(values)} ({where})")
        if len(values) > wanted:
            self.notes[
                f"of the {len(values)} values of an item the first {wanted} are used, as the model's inputs"
            ] = None
        pairs = zip(self._names, values, strict=False)
        return {name: _array(value, f"input '{name}'", where) for name, value in pairs}

    def _check_names(self, names: Mapping[Any, Any], where: str) -> None:
        listing = ", ".join(self._names) or "none"
        for name in names:
            if name not in self._names:
                near = did_you_mean(str(name), self._names)
                raise InputError(f"there is no input '{name}'{near} (inputs: {listing}) ({where})")
        if missing := [name for name in self._names if name not in names]:
            raise InputError(f"input '{missing[0]}' is missing (inputs: {listing}) ({where})")

    def _cut(self, spec: TensorSpec, shape: tuple[int, ...], where: str) -> Cut:
        wanted = spec.shape
        cut = None
        if len(shape) == len(wanted) + 1 and _fits(wanted, shape[1:]):
            cut = Cut(shape[0], rows=1, drops=True)
        elif wanted and len(shape) == len(wanted) - 1 and self._rows(wanted[0]) == 1:
            cut = Cut(1, adds=True) if _fits(wanted[1:], shape) else None
        elif len(shape) == len(wanted) and _fits(wanted[1:], shape[1:]):
            cut = self._cut_rows(wanted, shape)
        if cut is None:
            raise InputError(
                f"input '{spec.name}': expected shape {_show(wanted)} or several of them, got {_show(shape)} "
                f"({where}){self._remedy(wanted, shape)}"
            )
        if cut.count == 0:
            raise InputError(f"input '{spec.name}': expected at least one sample, got none ({where})")
        return cut

    def _cut_rows(self, wanted: Sequence[Dim], shape: tuple[int, ...]) -> Cut | None:
        """Cut an array of the input's own rank along its first axis."""
        rows = self._rows(wanted[0]) if wanted else None
        if rows is None:
            return Cut(1)
        if shape[0] and (shape[0] < rows or (isinstance(wanted[0], int) and shape[0] % rows)):
            return None
        return Cut(shape[0] // rows, rows)

    def _rows(self, first: Dim) -> int | None:
        """Return how many rows make a batch, for an input whose first dimension is `first`."""
        if isinstance(first, int):
            return max(first, 1)
        return max(self._signature.dims.get(first, (1, None))[0], 1) if first == self._symbol else None

    def _remedy(self, wanted: Sequence[Dim], shape: tuple[int, ...]) -> str:
        rows = self._rows(wanted[0]) if wanted else None
        if rows and len(shape) == len(wanted) and _fits(wanted[1:], shape[1:]):
            return f"; the model takes {rows} at a time: give a multiple of {rows}"
        return ""

    def _checked(self, batch: Batch, where: str) -> Batch:
        """Return `batch` in the model's dtypes, or raise what is wrong with its values or symbolic shapes."""
        seen: dict[str, int] = {}
        for spec in self._signature.inputs:
            for dim, extent in zip(spec.shape, batch[spec.name].shape, strict=True):
                if isinstance(dim, str) and dim in self._signature.dims:
                    self._check_dim(spec, dim, extent, seen, where)
            batch[spec.name] = convert(spec, batch[spec.name], where)
        return batch

    def _check_dim(self, spec: TensorSpec, dim: str, extent: int, seen: dict[str, int], where: str) -> None:
        low, high = self._signature.dims[dim]
        if extent < low or (high is not None and extent > high):
            limits = f"{low} or more" if high is None else f"{low} to {high}"
            raise InputError(f"input '{spec.name}': expected {dim} of {limits}, got {extent} ({where})")
        if seen.setdefault(dim, extent) != extent:
            raise InputError(
                f"input '{spec.name}': expected {dim} = {seen[dim]} as in the inputs before it, got {extent} "
                f"({where})"
            )


def _batch_symbol(signature: Signature) -> str | None:
    """Return the symbolic dimension that leads every input and output, if there is one."""
    leading = {spec.shape[0] if spec.shape else 0 for spec in (*signature.inputs, *signature.outputs)}
    only = leading.pop() if len(leading) == 1 else None
    return only if isinstance(only, str) and only in signature.dims else None


def _fits(wanted: Sequence[Dim], shape: Sequence[int]) -> bool:
    """Whether the fixed dimensions agree; symbolic ones are looked at batch by batch."""
    return len(wanted) == len(shape) and all(
        isinstance(dim, str) or dim == extent for dim, extent in zip(wanted, shape, strict=True)
    )


def _show(shape: Sequence[Dim]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _is_sequence(record: Any) -> bool:
    """Whether a record is a sequence of inputs; a list of numbers is one array."""
    return isinstance(record, tuple) or (
        isinstance(record, list) and all(hasattr(value, "__array__") for value in record)
    )


def _array(value: Any, what: str, where: str) -> np.ndarray:
    """Return what may be a torch tensor, wherever it lies, as a numpy array."""
    if hasattr(value, "detach"):
        tensor = value.detach().cpu()
        value = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{what}: expected an array, got {type(value).__name__} ({where})") from error
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise InputError(f"{what}: expected numbers, got {type(value).__name__} of {array.dtype} ({where})")
    return array


def convert(spec: TensorSpec, array: np.ndarray, where: str) -> np.ndarray:
    """Return `array` in the dtype of `spec`: floats become floats and integers integers, nothing else.

    Raises:
        InputError: another kind of number, NaN, infinity, or an integer that does not fit.
    """
    got, wanted = _kind(array.dtype.name), _kind(spec.dtype)
    if got != wanted:
        scaled = ", scaled as in training" if wanted == "float" and got == "int" else ""
        raise InputError(
            f"input '{spec.name}': expected {spec.dtype}, got {array.dtype} ({where}); "
            f"convert it with .astype('{spec.dtype}'){scaled}"
        )
    dtype = numpy_dtype(spec.dtype)
    if wanted == "int" and array.size:
        low, high = int(array.min()), int(array.max())
        limits = np.iinfo(dtype)
        if low < limits.min or high > limits.max:
            raise InputError(
                f"input '{spec.name}': expected values that fit {spec.dtype}, got {low} to {high} ({where})"
            )
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype).reshape(array.shape)
    if wanted == "float" and not np.isfinite(converted).all():
        place = tuple(int(index) for index in np.argwhere(~np.isfinite(converted))[0])
        raise InputError(
            f"input '{spec.name}': expected finite values of {spec.dtype}, got {array[place]} at {place} "
            f"({where}); mend that sample or leave it out"
        )
    return converted


def _kind(dtype: str) -> str:
    if dtype == "bool":
        return "bool"
    return "float" if "float" in dtype else "int"
