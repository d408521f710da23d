"""What runs a library: TVM's virtual machine for Relax, or the library itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from compiler.deploy.aot import AotFiles, AotModel
from compiler.deploy.tensors import aligned_copy, from_numpy
from compiler.deploy.threads import use_threads
from compiler.support.errors import BuildError, KilnError

Watch = Callable[[str, bool, Sequence[Any]], None]
"""Is told the name of what is called, whether this is before or after the call, and the arguments."""


class Machine(Protocol):
    """Runs one library."""

    def place(self, array: np.ndarray) -> Any:
        """Return what `run` takes for an array, in place if it can be read so."""

    def run(self, prepared: Sequence[Any]) -> list[Any]:
        """Return the outputs, which share no memory with those of later calls."""

    def trace(self, prepared: Sequence[Any], watch: Watch) -> None:
        """Run, and tell `watch` of every call."""


class VirtualMachine:
    """A library in TVM's format."""

    def __init__(self, library: Path, kind: str, threads: int, alignment: int) -> None:
        """Load `library`, which may be deleted afterwards.

        Raises:
            BuildError: it cannot be loaded here, or the machine has no device of `kind`.
        """
        self._kind, self._threads, self._alignment = kind, threads, alignment
        use_threads(threads)
        self._device = device(kind)
        self._machine, self._main = _load(library, self._device)

    def place(self, array: np.ndarray) -> Any:
        """Return a TVM tensor."""
        return from_numpy(array, self._alignment, None if self._kind == "cpu" else self._device)

    def run(self, prepared: Sequence[Any]) -> list[Any]:
        """Return TVM's tensors, or torch tensors if one of the inputs is."""
        use_threads(self._threads)
        return list(self._main(*prepared))

    def trace(self, prepared: Sequence[Any], watch: Watch) -> None:
        """Tell of kernels by their names in the manifest, and of functions ``vm.builtin.*``.

        A kernel's arguments are its inputs, then its outputs.
        """

        def instrument(_function: Any, name: str, before: bool, _result: Any, *args: Any) -> int:
            if self._kind != "cpu":
                self._device.sync()  # kernels of an accelerator are only queued when they are called
            watch(name, before, args)
            return 0

        use_threads(self._threads)
        self._machine.set_instrument(instrument)
        try:
            self._main(*prepared)
        finally:
            self._machine.set_instrument(None)


class AheadOfTime:
    """A library that needs nothing: arrays in, arrays out."""

    def __init__(self, files: AotFiles, threads: int, alignment: int) -> None:
        """Load a library, whose files may be deleted afterwards.

        Raises:
            BuildError: it cannot be loaded here.
        """
        self._model, self._alignment = AotModel(files, threads), alignment

    def place(self, array: np.ndarray) -> Any:
        """Return an array that the library reads in place."""
        usable = array.flags.c_contiguous and array.dtype.isnative
        return array if usable and array.ctypes.data % self._alignment == 0 else aligned_copy(array)

    def run(self, prepared: Sequence[Any]) -> list[Any]:
        """Return arrays."""
        return list(self._model.run(prepared))

    def trace(self, prepared: Sequence[Any], watch: Watch) -> None:
        """Tell of kernels by their names in the manifest; arguments are outputs only, after the call."""
        steps = self._model.steps

        def told(step: int, outputs: Sequence[np.ndarray]) -> None:
            watch(steps[step].kernel, False, outputs)
            if step + 1 < len(steps):
                watch(steps[step + 1].kernel, True, ())

        if steps:
            watch(steps[0].kernel, True, ())
        self._model.run(prepared, told)


def device(kind: str) -> Any:
    """Return TVM's device.

    Raises:
        BuildError: there is none of that kind.
    """
    import tvm

    if reason := why_no_device(kind):
        raise BuildError(reason)
    return tvm.device(kind, 0)


def why_no_device(kind: str) -> str | None:
    """Return why there is no device of that kind, None if there is."""
    import tvm

    if kind == "cpu" or tvm.device(kind, 0).exist:
        return None
    return f"TVM finds no {kind} device on this machine"


def _load(library: Path, place: Any) -> tuple[Any, Any]:
    """Return the virtual machine, which owns the code, and its entry function."""
    import tvm
    from tvm import relax

    try:
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), place)
        return machine, machine["main"]
    except KilnError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BuildError(f"TVM cannot load the library: {reason[-1]}") from error
