"""Runs a compiled model on this machine. Needs no torch, and TVM only for libraries in its format."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compiler.bundle import LIBRARY, Bundle, Manifest, read
from compiler.deploy.aot import AotFiles
from compiler.deploy.inputs import ShapeChecker, bind
from compiler.deploy.machine import AheadOfTime, Machine, VirtualMachine, Watch, why_no_device
from compiler.deploy.tensors import as_numpy, from_torch, is_torch, to_numpy, to_torch
from compiler.deploy.threads import choose_threads
from compiler.deploy.tree import nest
from compiler.support.errors import BuildError, BundleError, InputError
from compiler.support.files import private_folder
from compiler.support.signature import Signature
from compiler.target import Target, compatible, why_not_here

ALIGNMENT = 64
"""What TVM takes for the alignment of every tensor, in bytes: its code loads aligned vectors."""


class Session:
    """A compiled model, ready to be called.

    Called with tensors in signature order or by name, it returns the outputs nested as the original
    model's. numpy arrays give numpy arrays; one torch tensor among the inputs gives torch tensors.
    Memory is shared, not copied, where compiled code can use it (see `compiler.deploy.tensors`).
    Calls from several Python threads take turns.
    """

    def __init__(
        self,
        library: Path | AotFiles,
        signature: Signature,
        *,
        threads: int | None = None,
        kind: str = "cpu",
        alignment: int = ALIGNMENT,
        manifest: Manifest | None = None,
    ) -> None:
        """Load `library`, in TVM's format or ahead of time, which may be deleted afterwards.

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
        self._machine: Machine = (
            AheadOfTime(library, self.threads, alignment)
            if isinstance(library, AotFiles)
            else VirtualMachine(library, kind, self.threads, alignment)
        )

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
            outputs = [to_torch(output, values) for output in outputs]
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
        return self._machine.place(value.numpy() if is_torch(value) else value)

    def invoke(self, prepared: Sequence[Any]) -> list[Any]:
        """Run the model on what `prepare` gave; return its outputs, flat, as the machine made them.

        They are arrays, TVM's tensors, or torch tensors if one of the inputs is, and share no memory with
        later calls.
        """
        with self._lock:
            return self._machine.run(prepared)

    def trace(self, prepared: Sequence[Any], watch: Watch) -> None:
        """Run the model as `invoke` does; tell `watch` of every call of a kernel or of the virtual machine.

        Called are kernels by their names in the manifest, and functions ``vm.builtin.*`` of the virtual
        machine's own. The last of a kernel's arguments after a call are its outputs.
        """
        with self._lock:
            self._machine.trace(prepared, watch)


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
    # Libraries and weights are mapped when they are loaded, so the files need not stay.
    with private_folder() as folder:
        try:
            return Session(
                _extract(opened, folder),
                manifest.signature,
                threads=threads,
                kind=manifest.target.kind,
                alignment=manifest.alignment,
                manifest=manifest,
            )
        except BuildError as error:
            raise BundleError(f"the bundle '{bundle}' cannot run here: {error}") from error


def _extract(bundle: Bundle, folder: Path) -> Path | AotFiles:
    """Write what runs to `folder`."""
    if bundle.manifest.aot is not None:
        return extract(bundle, folder)
    bundle.extract(LIBRARY, folder / LIBRARY)
    return folder / LIBRARY


def extract(bundle: Bundle, folder: Path) -> AotFiles:
    """Write an ahead-of-time library and its weights to `folder`.

    Raises:
        BundleError: the bundle has none.
    """
    aot = bundle.manifest.aot
    if aot is None or aot.library is None:
        raise BundleError(f"'{bundle.path}' has no library: it holds C, to be unpacked and made")
    for name in (aot.library, *([aot.weights] if aot.weights else [])):
        bundle.extract(name, folder / name)
    return AotFiles(folder / aot.library, aot.name, folder / aot.weights if aot.weights else None)


def run_library(library: Path, inputs: Sequence[np.ndarray], threads: int) -> list[np.ndarray]:
    """Run a library's ``main`` once on this machine's CPU; no signature, so nothing is checked.

    Raises:
        BuildError: the library cannot be loaded.
    """
    machine = VirtualMachine(library, "cpu", threads, ALIGNMENT)
    return [to_numpy(each) for each in machine.run([machine.place(array) for array in inputs])]


def why_not_run(target: Target) -> str | None:
    """Return why code for `target` cannot run on this machine, None if it can."""
    return compatible(target) or why_no_device(target.kind)
