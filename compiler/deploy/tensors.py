"""Tensors in and out of TVM, without copies where memory allows: DLPack both ways.

numpy arrays and torch tensors share their memory with TVM. A copy is made only of what compiled code
cannot read in place: strided, read-only or byte-swapped data, data on another device, and data whose
address is not aligned as the kernels need it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.deploy.inputs import wrong_dtype
from compiler.support.errors import InputError, InternalError
from compiler.support.signature import TensorSpec

_NUMPY_LACKS = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
_ROOM = 64


def is_torch(value: Any) -> bool:
    """Return whether `value` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def from_torch(value: Any, spec: TensorSpec, alignment: int, device: str) -> Any:
    """Return a torch tensor that compiled code on `device` (``cpu``, ``cuda``) can read in place.

    Raises:
        InputError: another dtype, or a tensor without plain strided memory.
    """
    torch = sys.modules["torch"]
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype != spec.dtype:
        raise wrong_dtype(spec, dtype, lambda name: f".to(torch.{name})")
    if value.layout is not torch.strided or value.is_meta or value.is_nested:
        raise InputError(f"input '{spec.name}': expected a dense tensor with data, got a {_odd(value)} one")
    if value.requires_grad:
        value = value.detach()
    if value.device.type != device:
        value = value.to(device)
    if value.is_neg() or value.is_conj():
        value = value.resolve_conj().resolve_neg()
    value = value.contiguous()
    return value.clone() if value.data_ptr() % alignment else value


def _odd(value: Any) -> str:
    if value.is_meta:
        return "meta"
    return "nested" if value.is_nested else str(value.layout).removeprefix("torch.")


def as_numpy(value: Any, spec: TensorSpec) -> np.ndarray:
    """Return `value` as a numpy array of the spec's dtype, sharing memory if possible.

    Python numbers are taken for inputs without dimensions; anything else with ``__dlpack__`` is read
    through it.

    Raises:
        InputError: another dtype, or no tensor at all.
    """
    if isinstance(value, (bool, int, float)) and spec.shape == ():
        return _number(value, spec)
    if not isinstance(value, (np.ndarray, np.generic)):
        if not hasattr(value, "__dlpack__"):
            raise InputError(
                f"input '{spec.name}': expected a numpy array or a torch tensor, got {type(value).__name__}"
            )
        try:
            value = np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"input '{spec.name}': cannot read the {type(value).__name__}: {error}"
            ) from error
    array = np.asarray(value)
    if array.dtype.name != spec.dtype:
        raise wrong_dtype(spec, str(array.dtype), lambda name: f'.astype("{name}")')
    return array


def _number(value: float, spec: TensorSpec) -> np.ndarray:
    from compiler.support.dtypes import numpy_dtype

    dtype = numpy_dtype(spec.dtype)
    if dtype.kind in "biu" and (isinstance(value, float) or (dtype.kind == "b") != isinstance(value, bool)):
        raise InputError(f"input '{spec.name}': expected {spec.dtype}, got the number {value!r}")
    try:
        return np.array(value, dtype)
    except OverflowError as error:
        raise InputError(f"input '{spec.name}': {value!r} does not fit {spec.dtype}") from error


def from_numpy(array: np.ndarray, alignment: int, device: Any) -> Any:
    """Return a TVM tensor of `array`'s elements, on the CPU in place if compiled code can read them so."""
    import tvm
    from tvm_ffi import from_dlpack

    if device is not None:
        return tvm.runtime.tensor(np.ascontiguousarray(array).reshape(array.shape), device)
    if array.dtype.name in _NUMPY_LACKS:
        return tvm.runtime.tensor(np.ascontiguousarray(array).reshape(array.shape))
    flags = array.flags
    usable = flags.c_contiguous and flags.writeable and array.dtype.isnative
    if not usable or array.ctypes.data % alignment:
        array = aligned_copy(array, max(alignment, _ROOM))
    return from_dlpack(array)


def aligned_copy(array: np.ndarray, alignment: int = _ROOM) -> np.ndarray:
    """Return a contiguous copy in native byte order, at an address that `alignment` (bytes) divides."""
    dtype = array.dtype.newbyteorder("=")
    buffer = np.empty(array.size * dtype.itemsize + alignment, np.uint8)
    start = -buffer.ctypes.data % alignment
    used = buffer[start : start + array.size * dtype.itemsize]
    copy: np.ndarray = used.view(dtype).reshape(array.shape)
    copy[...] = array
    return copy


def to_numpy(tensor: Any) -> np.ndarray:
    """Return a result of TVM as a numpy array, in place unless on a device or of a type that numpy lacks."""
    if isinstance(tensor, np.ndarray):
        return tensor
    if is_torch(tensor):
        tensor = tensor.cpu()
    elif tensor.device.type != "cpu" or str(tensor.dtype) in _NUMPY_LACKS:
        return np.asarray(tensor.numpy())
    return np.from_dlpack(tensor)


def to_torch(output: Any, inputs: Sequence[Any]) -> Any:
    """Return a result as a torch tensor on the device of the first torch tensor among `inputs`."""
    import torch

    if isinstance(output, np.ndarray) and output.dtype.name in _NUMPY_LACKS:
        bits = output.view(f"int{8 * output.itemsize}")
        tensor = torch.from_numpy(bits).view(getattr(torch, output.dtype.name))
    else:
        tensor = output if isinstance(output, torch.Tensor) else torch.from_dlpack(output)
    wanted = next(value.device for value in inputs if is_torch(value))
    if tensor.device.type == wanted.type:
        return tensor
    try:
        return tensor.to(wanted)
    except RuntimeError as error:
        raise InternalError(f"cannot move an output to {wanted}: {error}") from error
