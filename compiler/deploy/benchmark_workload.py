"""Prepares what every runtime of a benchmark computes: inputs, reference outputs and the model's forms.

Runs in a process of its own (``python -m compiler.deploy.benchmark_workload FOLDER``), so that the memory
and threads of PyTorch's exporters are gone when measuring begins.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from compiler.deploy.benchmark_samples import write_samples
from compiler.deploy.peers.session import PeerError, Workload
from compiler.support.errors import KilnError, UsageError

FILES = {"module": "model.pt2", "onnx": "model.onnx", "torchscript": "model.pt"}
"""The forms that peers read; "module" is what Kiln compiles."""


def prepare(workload: Workload, wanted: set[str]) -> Workload:
    """Write inputs, reference outputs and the `wanted` forms of the model into the workload's folder.

    A form that cannot be made is noted in `troubles` and is no error: its peers will say so.

    Raises:
        UsageError: no such model, or no example inputs.
        ModelError: the model cannot be loaded or run.
    """
    if workload.source.endswith(".onnx"):
        prepared = _prepare_onnx(workload)
    else:
        prepared = _prepare_torch(workload, wanted)
    prepared.save()
    return prepared


def load_module(workload: Workload) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return the torch module in eval mode and its arguments, with the same weights in every process.

    Raises:
        PeerError: the model does not come from PyTorch.
    """
    if workload.source.endswith(".onnx"):
        raise PeerError("the model is an ONNX file, which PyTorch cannot run")
    module, args, kwargs = _read(workload)
    weights = workload.folder / "weights.pt"
    if weights.exists():
        import torch

        module.load_state_dict(torch.load(weights, weights_only=True))
    return module, args, kwargs


def _read(workload: Workload) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Load the user's source and choose its example inputs, as the frontend does."""
    from compiler.frontend.arguments import Arguments, accept_examples, bind, from_texts
    from compiler.frontend.example_inputs import declared_examples
    from compiler.frontend.factory import is_factory_text, make_module
    from compiler.frontend.input_text import parse_inputs
    from compiler.frontend.program_file import read_program
    from compiler.frontend.torchscript_file import read_torchscript

    name, examples, path = "", None, Path(workload.source)
    if path.suffix == ".pt2" and path.is_file():
        program = read_program(path)
        return program.module(), *(program.example_inputs or ((), {}))
    if path.suffix in (".pt", ".pth", ".ts") and path.is_file():
        module = read_torchscript(path)
    elif is_factory_text(workload.source):
        made = make_module(workload.source)
        module, examples, name = made.module, made.examples, made.name
    else:
        raise UsageError(
            f"cannot find the model '{workload.source}': it is no file (.pt2, .onnx, TorchScript) and not of "
            "the form package.module:factory"
        )
    if hasattr(module, "graph_signature"):  # a factory may give an ExportedProgram
        return module.module(), *module.example_inputs
    if workload.inputs:
        arguments = from_texts(module, parse_inputs(workload.inputs))
    elif examples is not None:
        arguments = bind(module, accept_examples(examples))
    else:
        declared = declared_examples(module, name)
        if declared is None:
            raise UsageError(
                f"no example inputs for '{workload.source}'; give --input NAME=1x3x224x224:float32"
            )
        arguments = bind(module, Arguments(*declared))
    return module.eval(), arguments.args, arguments.kwargs


def _prepare_torch(workload: Workload, wanted: set[str]) -> Workload:
    import torch
    from torch.utils._pytree import tree_leaves

    torch.set_num_threads(workload.threads)
    module, args, kwargs = _read(workload)
    names = input_names(module, args, kwargs)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    original = flatten(module, args, kwargs)

    def run(arrays: list[np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            return [each.numpy(force=True) for each in original(*map(torch.tensor, arrays))]

    workload = replace(workload, names=names)
    workload = write_samples(workload, [tensor.numpy(force=True) for tensor in tensors], run)
    if not workload.source.endswith(".pt2"):
        with contextlib.suppress(Exception):  # without it the factory's own seed has to do
            torch.save(module.state_dict(), workload.folder / "weights.pt")
    flat = flatten(*_traceable(module, args, kwargs))
    makers: dict[str, Callable[[Path], None]] = {
        "module": lambda path: _export(flat, tensors, path),
        "onnx": lambda path: _export_onnx(flat, tensors, names, path),
        "torchscript": lambda path: _trace(flat, tensors, path),
    }
    artifacts, troubles = {}, {}
    for form, make in makers.items():
        if form in wanted:
            try:
                make(workload.folder / FILES[form])
                artifacts[form] = FILES[form]
            except Exception as error:
                troubles[form] = f"PyTorch cannot write it as {form}: {one_line(error)}"
    return replace(workload, artifacts=artifacts, troubles=troubles)


def _traceable(
    module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return what exporters take: TorchScript, which they do not, as the frontend converts it."""
    import torch

    from compiler.frontend.arguments import Arguments
    from compiler.frontend.torchscript_file import export_torchscript

    if not isinstance(module, torch.jit.ScriptModule):
        return module, args, kwargs
    program = export_torchscript(module, Arguments(args, kwargs), "the model")
    return program.module(), *program.example_inputs


def input_names(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, ...]:
    """Return a name for each tensor among the arguments, after the parameters of forward."""
    import torch
    from torch.utils._pytree import tree_leaves

    try:
        parameters = [p for p in inspect.signature(module.forward).parameters if p not in kwargs]
    except (TypeError, ValueError):
        parameters = []
    parameters += [f"input_{i}" for i in range(len(parameters), len(args))]
    names: list[str] = []
    for name, value in (*zip(parameters, args, strict=False), *kwargs.items()):
        count = sum(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(value))
        names += [name] if count == 1 else [f"{name}_{i}" for i in range(count)]
    return tuple(names)


def flatten(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return a module from the tensors among the arguments to the tuple of tensors among the outputs.

    Exporters and file formats stumble over keywords, nesting and the output classes of other packages.
    """
    import torch
    from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

    leaves, spec = tree_flatten((args, kwargs))

    class Flat(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = module

        def train(self, mode: bool = True) -> Any:
            # The module is in eval mode already, and an exported one refuses to be told.
            return self

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            rest = iter(tensors)
            values = [next(rest) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
            positional, keywords = tree_unflatten(values, spec)
            outputs = tree_leaves(self.model(*positional, **keywords))
            return tuple(leaf for leaf in outputs if isinstance(leaf, torch.Tensor))

    flat = Flat()
    flat.training = False
    return flat


def _export(flat: Any, tensors: list[Any], path: Path) -> None:
    import torch

    with torch.no_grad():
        torch.export.save(torch.export.export(flat, tuple(tensors), strict=False), str(path))


def _export_onnx(flat: Any, tensors: list[Any], names: tuple[str, ...], path: Path) -> None:
    """Write ONNX by torch's present exporter, or by the TorchScript one where that fails."""
    import torch

    settings = {"input_names": list(names), "verbose": False}
    try:
        torch.onnx.export(
            flat, tuple(tensors), str(path), dynamo=True, optimize=True, external_data=False, **settings
        )
    except Exception:
        torch.onnx.export(flat, tuple(tensors), str(path), dynamo=False, **settings)


def _trace(flat: Any, tensors: list[Any], path: Path) -> None:
    import torch

    with torch.no_grad():
        torch.jit.trace(flat, tuple(tensors), check_trace=False).save(str(path))


def _prepare_onnx(workload: Workload) -> Workload:
    """Copy a user's ONNX file; its reference outputs are those of the frontend."""
    from compiler.frontend import load
    from compiler.frontend.input_text import random_tensor

    model = load(workload.source, inputs=workload.inputs or None)
    arrays = list(model.examples) or [
        random_tensor(
            tuple(e if isinstance(e, int) else 1 for e in spec.shape), spec.dtype, None, seed
        ).numpy()
        for seed, spec in enumerate(model.signature.inputs)
    ]
    if model.reference is None:
        raise UsageError(f"'{workload.source}' has no reference to compare with")
    reference = model.reference
    workload = replace(workload, names=tuple(spec.name for spec in model.signature.inputs))
    workload = write_samples(workload, arrays, lambda inputs: [np.asarray(a) for a in reference(inputs)])
    shutil.copyfile(workload.source, workload.folder / FILES["onnx"])
    return replace(workload, artifacts={"onnx": FILES["onnx"]})


def one_line(error: BaseException) -> str:
    """Return the kind of `error` and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


def main(folder: Path, wanted: set[str]) -> int:
    """Prepare the workload described in `folder`; a user's error is one line on the real stderr."""
    errors = os.fdopen(os.dup(2), "w")
    os.dup2(os.open(folder / "prepare.log", os.O_WRONLY | os.O_CREAT), 1)  # exporters are talkative
    os.dup2(1, 2)
    try:
        prepare(Workload.open(folder), wanted)
    except KilnError as error:
        print(error, file=errors)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), set(sys.argv[2:])))
