"""Runs a compiled model on this machine, through TVM's virtual machine for Relax. Needs no torch."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compiler.bundle import LIBRARY, Manifest, read
from compiler.deploy.inputs import ShapeChecker, bind
from compiler.deploy.tensors import as_numpy, from_numpy, from_torch, is_torch, to_numpy
from compiler.deploy.threads import choose_threads, use_threads
from compiler.deploy.tree import nest
from compiler.support.errors import BuildError, BundleError, InputError, InternalError, KilnError
from compiler.support.files import private_folder
from compiler.support.signature import Signature
from compiler.target import Target, compatible, why_not_here

ALIGNMENT = 64
"""What TVM takes for the alignment of every tensor, in bytes: its code loads aligned vectors."""

Watch = Callable[[str, bool, Sequence[Any]], None]
"""Is told the name of what is called, whether this is before or after the call, and the arguments."""


class Session:
    """A compiled model, ready to be called.

    Called with tensors in signature order or by name, it returns the outputs nested as the original
    model's. numpy arrays give numpy arrays; one torch tensor among the inputs gives torch tensors.
    Memory is shared, not copied, where compiled code can use it (see `compiler.deploy.tensors`).
    Calls from several Python threads take turns.
    """

    def __init__(
        self,
        library: Path,
        signature: Signature,
        *,
        threads: int | None = None,
        kind: str = "cpu",
        alignment: int = ALIGNMENT,
        manifest: Manifest | None = None,
    ) -> None:
        """Load `library`, which may be deleted afterwards.

        `threads` counts threads (None: one per physical core), `kind` is the target's (cpu, cuda, ...),
        `alignment` is in bytes.

        Raises:
            UsageError: more threads than CPUs.
            BuildError: the library cannot be loaded here, or the machine has no device of `kind`.
        """
        self.signature = signature
        self.manifest = manifest
        self.threads = choose_threads(threads, manifest.threads if manifest else None)
        self._check_shapes = ShapeChecker(signature)
        self._alignment = alignment
        self._kind = kind
        self._lock = threading.Lock()
        use_threads(self.threads)
        self._device = _device(kind)
        self._machine, self.function = _load(library, self._device)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the model's outputs for these inputs.

        Raises:
            InputError: a wrong name, number, shape or dtype.
        """
        values = bind(self.signature, args, kwargs)
        outputs = self.invoke(self.prepare(values))
        if not any(map(is_torch, values)):
            outputs = [to_numpy(output) for output in outputs]
        else:
            outputs = [_to_torch(output, values) for output in outputs]
        return nest(self.signature.output_tree, outputs)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return the outputs by name as numpy arrays for inputs by name.

        Raises:
            InputError: a wrong name, shape or dtype.
        """
        outputs = self.invoke(self.prepare(bind(self.signature, (), feeds)))
        return {
            spec.name: to_numpy(output) for spec, output in zip(self.signature.outputs, outputs, strict=True)
        }

    def run_flat(self, values: Sequence[Any]) -> list[np.ndarray]:
        """Return the outputs as numpy arrays for inputs, both flat and in signature order.

        Raises:
            InputError: a wrong number, shape or dtype.
        """
        return [to_numpy(output) for output in self.invoke(self.prepare(values))]

    def prepare(self, values: Sequence[Any]) -> list[Any]:
        """Check `values` (in signature order) and return tensors to give to `invoke`, any number of times.

        Raises:
            InputError: a wrong number, shape or dtype.
        """
        specs = self.signature.inputs
        if len(values) != len(specs):
            raise InputError(f"expected {len(specs)} inputs, got {len(values)}")
        torch_device = "cuda" if self._kind == "cuda" else "cpu"
        checked = [
            from_torch(value, spec, self._alignment, torch_device)
            if is_torch(value)
            else as_numpy(value, spec)
            for value, spec in zip(values, specs, strict=True)
        ]
        self._check_shapes([tuple(value.shape) for value in checked])
        return [
            value if is_torch(value) and torch_device == self._kind else self._place(value)
            for value in checked
        ]

    def _place(self, value: Any) -> Any:
        array = value.numpy() if is_torch(value) else value
        return from_numpy(array, self._alignment, None if self._kind == "cpu" else self._device)

    def invoke(self, prepared: Sequence[Any]) -> list[Any]:
        """Run the model on what `prepare` gave; return its outputs, flat, as TVM made them.

        They are torch tensors if one of the inputs is, else TVM's, and share no memory with later calls.
        """
        with self._lock:
            use_threads(self.threads)
            return list(self.function(*prepared))

    def trace(self, prepared: Sequence[Any], watch: Watch) -> None:
        """Run the model as `invoke` does; tell `watch` of every call of a kernel or of the virtual machine.

        Called are kernels by their names in the manifest, and functions ``vm.builtin.*`` of the machine's
        own. A kernel's arguments are its inputs, then its outputs.
        """

        def instrument(_function: Any, name: str, before: bool, _result: Any, *args: Any) -> int:
            if self._kind != "cpu":
                self._device.sync()  # kernels of an accelerator are only queued when they are called
            watch(name, before, args)
            return 0

        with self._lock:
            use_threads(self.threads)
            self._machine.set_instrument(instrument)
            try:
                self.function(*prepared)
            finally:
                self._machine.set_instrument(None)


def load(bundle: str | os.PathLike[str], threads: int | None = None) -> Session:
    """Load a bundle to run it on this machine.

    `threads` overrides what the bundle says; by default one thread runs per physical core.

    Raises:
        UsageError: there is no such file, or more threads are wanted than there are CPUs.
        BundleError: the bundle is damaged, or was made for another machine.
    """
    opened = read(Path(bundle))
    manifest = opened.manifest
    reason = why_not_here(manifest.target.triple, manifest.target.features)
    if reason is not None:
        raise BundleError(f"the bundle '{bundle}' (target {manifest.target.name}) cannot run here: {reason}")
    # The library is mapped when it is loaded, so the file need not stay.
    with private_folder() as folder:
        library = folder / LIBRARY
        opened.extract(LIBRARY, library)
        try:
            return Session(
                library,
                manifest.signature,
                threads=threads,
                kind=manifest.target.kind,
                alignment=manifest.alignment,
                manifest=manifest,
            )
        except BuildError as error:
            raise BundleError(f"the bundle '{bundle}' cannot run here: {error}") from error


def run_library(library: Path, inputs: Sequence[np.ndarray], threads: int) -> list[np.ndarray]:
    """Run a library's ``main`` once on this machine's CPU; no signature, so nothing is checked.

    Raises:
        BuildError: the library cannot be loaded.
    """
    use_threads(threads)
    _machine, function = _load(library, _device("cpu"))
    return [to_numpy(each) for each in function(*(from_numpy(array, ALIGNMENT, None) for array in inputs))]


def why_not_run(target: Target) -> str | None:
    """Return why code for `target` cannot run on this machine, None if it can."""
    return compatible(target) or _why_no_device(target.kind)


def _why_no_device(kind: str) -> str | None:
    import tvm

    if kind == "cpu" or tvm.device(kind, 0).exist:
        return None
    return f"TVM finds no {kind} device on this machine"


def _device(kind: str) -> Any:
    import tvm

    if reason := _why_no_device(kind):
        raise BuildError(reason)
    return tvm.device(kind, 0)


def _load(library: Path, device: Any) -> tuple[Any, Any]:
    """Return the virtual machine, which owns the code, and its entry function."""
    import tvm
    from tvm import relax

    try:
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), device)
        return machine, machine["main"]
    except KilnError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BuildError(f"TVM cannot load the library: {reason[-1]}") from error


def _to_torch(output: Any, inputs: Sequence[Any]) -> Any:
    """Return `output` as a torch tensor on the device of the first torch input."""
    import torch

    tensor = output if isinstance(output, torch.Tensor) else torch.from_dlpack(output)
    wanted = next(value.device for value in inputs if is_torch(value))
    if tensor.device.type == wanted.type:
        return tensor
    try:
        return tensor.to(wanted)
    except RuntimeError as error:
        raise InternalError(f"cannot move an output to {wanted}: {error}") from error
