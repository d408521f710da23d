"""Runs an ahead-of-time library from Python, with numpy alone: neither TVM nor torch is loaded."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from compiler.support.dtypes import numpy_dtype
from compiler.support.errors import BuildError, InputError

_ALIGNMENT = 64
_RANK = 8


@dataclass(frozen=True)
class AotTensor:
    """An input or output of a library: dense, in C order."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @cached_property
    def layout(self) -> tuple[np.dtype[Any], int]:
        """The dtype of numpy, and bytes."""
        dtype = numpy_dtype(self.dtype)
        return dtype, prod(self.shape) * dtype.itemsize

    def empty(self) -> np.ndarray:
        """Return memory for it that the library uses in place."""
        dtype, size = self.layout
        room = np.empty(size + _ALIGNMENT, np.uint8)
        aligned: np.ndarray = np.ndarray(self.shape, dtype, room, -_address(room) % _ALIGNMENT)
        return aligned

    def at(self, address: int) -> np.ndarray:
        """Return the tensor at an address, in place."""
        dtype, size = self.layout
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        return memory.view(dtype).reshape(self.shape)


@dataclass(frozen=True)
class AotStep:
    """A kernel that a run calls, the layer of the model that its result is, and what it makes."""

    kernel: str
    layer: str
    outputs: tuple[AotTensor, ...]


@dataclass(frozen=True)
class AotFiles:
    """A library on disk: its path, the model's name, the file of its weights if they are not inside."""

    library: Path
    name: str
    weights: Path | None = None


class _Tensor(ctypes.Structure):
    """``MODEL_tensor`` of the header."""

    _fields_ = [
        ("name", ctypes.c_char_p), ("dtype", ctypes.c_char_p), ("rank", ctypes.c_int),
        ("shape", ctypes.c_int64 * _RANK), ("bytes", ctypes.c_size_t),
        ("scale", ctypes.c_double), ("zero_point", ctypes.c_int),
    ]  # fmt: skip


class _Step(ctypes.Structure):
    """``MODEL_step`` of the header."""

    _fields_ = [
        ("kernel", ctypes.c_char_p), ("layers", ctypes.c_char_p), ("output_count", ctypes.c_int),
        ("outputs", ctypes.POINTER(_Tensor)),
    ]  # fmt: skip


class _Options(ctypes.Structure):
    """``MODEL_options`` of the header."""

    _fields_ = [
        ("threads", ctypes.c_int), ("memory", ctypes.c_void_p), ("memory_bytes", ctypes.c_size_t),
        ("weights", ctypes.c_char_p),
    ]  # fmt: skip


class _Size(ctypes.Structure):
    """``MODEL_size`` of the header."""

    _fields_ = [
        ("name", ctypes.c_char_p), ("least", ctypes.c_int64), ("greatest", ctypes.c_int64),
        ("input", ctypes.c_int), ("dimension", ctypes.c_int),
    ]  # fmt: skip


_WATCH = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p))
"""``MODEL_watch`` of the header."""

_NO_WATCH = _WATCH()

Watch = Callable[[int, Sequence[np.ndarray]], None]
"""Is told the number of a step that has ended, and what it made: valid only during the call."""


class AotModel:
    """One instance of the model in a library; a context manager that frees it.

    Attributes:
        inputs: in order; where sizes vary, the greatest shapes.
        outputs: in order, the same.
        steps: of a run, in order.
        threads: that it runs on.
    """

    def __init__(self, files: AotFiles, threads: int = 0) -> None:
        """Make an instance of a library's model on so many threads; 0: one a processor.

        The files may be deleted afterwards.

        Raises:
            BuildError: the library cannot be loaded here, has no such model, or cannot be used.
        """
        self._handle, self._name = ctypes.c_void_p(), files.name
        try:
            self._library = ctypes.CDLL(str(files.library.resolve()))
            self._function("error").restype = ctypes.c_char_p
        except (OSError, AttributeError) as error:
            raise BuildError(
                f"'{files.library}' cannot be loaded as a library of the model '{files.name}': {error}"
            ) from error
        weights = None if files.weights is None else str(files.weights.resolve()).encode()
        options = _Options(threads, None, 0, weights)
        if self._function("create")(ctypes.byref(self._handle), ctypes.byref(options)):
            raise BuildError(f"'{files.library}' cannot be used: {self._error()}")
        self._run = self._function("run_watched")
        self._free = weakref.finalize(self, self._function("destroy"), self._handle)
        self._inputs, self._outputs = self._table(_Tensor, "input"), self._table(_Tensor, "output")
        self._steps, self._sizes = self._table(_Step, "step"), self._table(_Size, "size")
        self.inputs, self.outputs = tuple(map(_tensor, self._inputs)), tuple(map(_tensor, self._outputs))
        self.steps = tuple(
            AotStep(row.kernel.decode(), row.layers.decode(), tuple(map(_tensor, _made(row))))
            for row in self._steps
        )
        self.threads = int(self._function("threads")(self._handle))

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for `inputs`, in order.

        Raises:
            InputError: a wrong number, shape or dtype.
        """
        if not self._free.alive:
            raise InputError(f"the model '{self._name}' was closed")
        if len(inputs) != len(self.inputs):
            raise InputError(f"expected {len(self.inputs)} inputs, got {len(inputs)}")
        self._set_sizes(inputs)
        specs = self._present(self.inputs, self._inputs)
        return self.run([_checked(spec, array) for spec, array in zip(specs, inputs, strict=True)])

    def run(self, inputs: Sequence[Any], watch: Watch | None = None) -> list[np.ndarray]:
        """Return the outputs for `inputs`: dense arrays or torch tensors of the right shapes.

        Nothing is checked. `watch` is told of every step; what it raises is raised after the run.
        """
        self._set_sizes(inputs)
        outputs = [spec.empty() for spec in self._present(self.outputs, self._outputs)]
        given, made = _pointers(inputs), _pointers(outputs)
        if watch is None:
            self._check(self._run(self._handle, given, made, _NO_WATCH, None))
            return outputs

        failures: list[BaseException] = []

        def told(_: Any, step: int, values: Any) -> None:
            if failures:
                return
            try:
                specs = self._present(self.steps[step].outputs, _made(self._steps[step]))
                watch(step, [spec.at(values[i]) for i, spec in enumerate(specs)])
            except BaseException as error:  # C knows none: it is raised once C is left
                failures.append(error)

        self._check(self._run(self._handle, given, made, _WATCH(told), None))
        if failures:
            raise failures[0]
        return outputs

    def _check(self, failed: int) -> None:
        if failed:
            raise BuildError(f"the model '{self._name}' failed: {self._error(self._handle)}")

    def close(self) -> None:
        """Free the instance; it cannot run any more."""
        self._free()

    def __enter__(self) -> AotModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _function(self, name: str) -> Any:
        return getattr(self._library, f"{self._name}_{name}")

    def _error(self, handle: Any = None) -> str:
        return str(self._function("error")(handle).decode())

    def _table(self, row: Any, name: str) -> list[Any]:
        """Return the rows of one of the library's tables, in its own memory."""
        number = ctypes.c_int.in_dll(self._library, f"{self._name}_{name}_count").value
        return list((row * max(1, number)).in_dll(self._library, f"{self._name}_{name}s"))[:number]

    def _set_sizes(self, inputs: Sequence[Any]) -> None:
        """Set the sizes that vary to those of the inputs.

        Raises:
            InputError: one is too small or too great.
        """
        if not self._sizes:
            return
        shapes = [getattr(array, "shape", ()) for array in inputs]
        found = [shapes[row.input][row.dimension : row.dimension + 1] for row in self._sizes]
        sizes = (ctypes.c_int64 * len(found))(*(int(each[0]) if each else 0 for each in found))
        if self._function("set_sizes")(self._handle, sizes):
            raise InputError(self._error(self._handle))

    def _present(self, fixed: Sequence[AotTensor], rows: Sequence[Any]) -> Sequence[AotTensor]:
        """Return tensors with the shapes that they have with the present sizes; `rows` tell of them in C."""
        if not self._sizes:
            return fixed
        specs = list(fixed)
        shape = (ctypes.c_int64 * _RANK)()
        for place, row in enumerate(rows):
            self._function("shape")(self._handle, ctypes.byref(row), shape)
            specs[place] = replace(specs[place], shape=tuple(shape[: row.rank]))
        return specs


def _checked(spec: AotTensor, array: np.ndarray) -> np.ndarray:
    """Return an input as the library takes it.

    Raises:
        InputError: it has another shape or dtype.
    """
    dtype = numpy_dtype(spec.dtype)
    if not isinstance(array, np.ndarray) or (array.shape, array.dtype) != (spec.shape, dtype):
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"input '{spec.name}': expected {spec.dtype} {spec.shape}, got {got}")
    return np.ascontiguousarray(array)


def _address(tensor: Any) -> int:
    """Return where a numpy array or a torch tensor has its elements."""
    if isinstance(tensor, np.ndarray):
        return int(tensor.__array_interface__["data"][0])  # numpy's `ctypes` takes four times as long
    return int(tensor.data_ptr())


def _pointers(tensors: Sequence[Any]) -> Any:
    return (ctypes.c_void_p * max(1, len(tensors)))(*map(_address, tensors))


def _made(row: Any) -> list[Any]:
    """Return the rows of the tensors that a step makes."""
    return list(row.outputs[: row.output_count])


def _tensor(row: Any) -> AotTensor:
    return AotTensor(row.name.decode(), row.dtype.decode(), tuple(row.shape[: row.rank]))
