"""Runs an ahead-of-time library from Python, with numpy alone: neither TVM nor torch is loaded."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
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

    def empty(self) -> np.ndarray:
        """Return memory for it that the library uses in place."""
        dtype = numpy_dtype(self.dtype)
        size = int(np.prod(self.shape, dtype=np.int64)) * dtype.itemsize
        room = np.empty(size + _ALIGNMENT, np.uint8)
        begin = -room.ctypes.data % _ALIGNMENT
        return room[begin : begin + size].view(dtype).reshape(self.shape)


@dataclass(frozen=True)
class AotStep:
    """A kernel that a run calls, and the layers of the model that it computes."""

    kernel: str
    layers: str


class _Tensor(ctypes.Structure):
    """``MODEL_tensor`` of the header."""

    _fields_ = [
        ("name", ctypes.c_char_p), ("dtype", ctypes.c_char_p), ("rank", ctypes.c_int),
        ("shape", ctypes.c_int64 * _RANK), ("bytes", ctypes.c_size_t),
    ]  # fmt: skip


class _Step(ctypes.Structure):
    """``MODEL_step`` of the header."""

    _fields_ = [("kernel", ctypes.c_char_p), ("layers", ctypes.c_char_p)]


class _Options(ctypes.Structure):
    """``MODEL_options`` of the header."""

    _fields_ = [("threads", ctypes.c_int), ("memory", ctypes.c_void_p), ("memory_bytes", ctypes.c_size_t)]


class AotModel:
    """One instance of the model in a library; a context manager that frees it.

    Attributes:
        inputs: in order.
        outputs: in order.
        steps: of a run, in order.
        threads: that it runs on.
    """

    def __init__(self, library: Path, name: str, threads: int = 0) -> None:
        """Make an instance of the model `name` of ``lib<name>.so`` on so many threads; 0: one a processor.

        Raises:
            BuildError: the library cannot be loaded here, or has no such model.
        """
        self._handle, self._name = ctypes.c_void_p(), name
        try:
            self._library = ctypes.CDLL(str(Path(library).resolve()))
            self._function("error").restype = ctypes.c_char_p
        except (OSError, AttributeError) as error:
            raise BuildError(
                f"'{library}' cannot be loaded as a library of the model '{name}': {error}"
            ) from error
        options = _Options(threads, None, 0)
        if self._function("create")(ctypes.byref(self._handle), ctypes.byref(options)):
            raise BuildError(f"'{library}' cannot be used: {self._error()}")
        self.inputs = self._tensors("input")
        self.outputs = self._tensors("output")
        rows = self._table(_Step, "steps", "step_count")
        self.steps = tuple(AotStep(row.kernel.decode(), row.layers.decode()) for row in rows)
        self.threads = int(self._function("threads")(self._handle))

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for `inputs`, in order.

        Raises:
            InputError: a wrong number, shape or dtype.
        """
        return self._run(inputs, None)

    def timed(self, *inputs: np.ndarray) -> tuple[list[np.ndarray], list[float]]:
        """Return the outputs, and the seconds that each step took.

        Raises:
            InputError: a wrong number, shape or dtype.
        """
        seconds = (ctypes.c_double * max(1, len(self.steps)))()
        outputs = self._run(inputs, seconds)
        return outputs, list(seconds)[: len(self.steps)]

    def close(self) -> None:
        """Free the instance; it cannot run any more."""
        if self._handle:
            self._function("destroy")(self._handle)
            self._handle = ctypes.c_void_p()

    def __enter__(self) -> AotModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, inputs: Sequence[np.ndarray], seconds: Any) -> list[np.ndarray]:
        if not self._handle:
            raise InputError(f"the model '{self._name}' was closed")
        if len(inputs) != len(self.inputs):
            raise InputError(f"expected {len(self.inputs)} inputs, got {len(inputs)}")
        given = [_checked(spec, array) for spec, array in zip(self.inputs, inputs, strict=True)]
        outputs = [spec.empty() for spec in self.outputs]
        if self._function("run_timed")(self._handle, _pointers(given), _pointers(outputs), seconds):
            raise BuildError(f"the model '{self._name}' failed: {self._error(self._handle)}")
        return outputs

    def _function(self, name: str) -> Any:
        return getattr(self._library, f"{self._name}_{name}")

    def _error(self, handle: Any = None) -> str:
        return str(self._function("error")(handle).decode())

    def _tensors(self, kind: str) -> tuple[AotTensor, ...]:
        rows = self._table(_Tensor, f"{kind}s", f"{kind}_count")
        return tuple(
            AotTensor(row.name.decode(), row.dtype.decode(), tuple(row.shape[: row.rank])) for row in rows
        )

    def _table(self, row: Any, name: str, count: str) -> list[Any]:
        """Return the rows of one of the library's tables."""
        number = ctypes.c_int.in_dll(self._library, f"{self._name}_{count}").value
        return list((row * max(1, number)).in_dll(self._library, f"{self._name}_{name}"))[:number]


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


def _pointers(arrays: Sequence[np.ndarray]) -> Any:
    return (ctypes.c_void_p * max(1, len(arrays)))(*(array.ctypes.data for array in arrays))
