"""`load`: any form of a model becomes a `Model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from compiler.frontend.arguments import (
    Arguments,
    Varying,
    accept_examples,
    bind,
    bound_arguments,
    find_varying,
    forward_signature,
    from_texts,
    varying_of_texts,
)
from compiler.frontend.converters import freeze_fake_quantize
from compiler.frontend.example_inputs import declared_examples, default_options
from compiler.frontend.export import export, module_of_program
from compiler.frontend.factory import is_factory_text, make_module
from compiler.frontend.input_text import InputText, parse_inputs
from compiler.frontend.levels import with_levels
from compiler.frontend.model import Model
from compiler.frontend.model_file import SUFFIX, read_model
from compiler.frontend.onnx_file import read_onnx
from compiler.frontend.program import import_program
from compiler.frontend.program_file import read_program
from compiler.frontend.torchscript_file import export_torchscript, read_torchscript
from compiler.support.errors import ModelError, UsageError, did_you_mean
from compiler.support.progress import note

_SUFFIXES = {
    ".pt2": "an exported program (torch.export.save)",
    ".onnx": "an ONNX model",
    ".pt": "TorchScript (torch.jit.save)",
    ".pth": "TorchScript (torch.jit.save)",
    ".ts": "TorchScript (torch.jit.save)",
    ".kq": "a model that Kiln quantized (kiln quantize)",
}


@dataclass(frozen=True)
class _Request:
    """What the user asked for besides the model itself."""

    examples: Any = None
    inputs: tuple[InputText, ...] = ()
    dynamic: Mapping[str, Any] = field(default_factory=dict)
    explicit_state: bool = False
    converters: Mapping[str, Any] = field(default_factory=dict)
    factory: str = ""


def load(
    source: Any,
    example_inputs: Any = None,
    *,
    inputs: Sequence[str] | None = None,
    dynamic: Mapping[str, Any] | None = None,
    state: str = "refuse",
    converters: Mapping[str, Any] | None = None,
) -> Model:
    """Import a model.

    Args:
        source: an nn.Module, a torch ExportedProgram, the path of a ``.pt2``, ``.onnx``, TorchScript or
            ``.kq`` file, or the text ``package.module:factory``.
        example_inputs: what forward is called with: a tensor, a sequence, a mapping of keywords, or a pair
            of a sequence and a mapping. Values that are not tensors become constants.
        inputs: inputs described as text instead, such as ``"x=Nx3x224x224:float32"``.
        dynamic: dimensions that may vary, ``{"x": {0: "N"}}`` or ``{"x": {0: ("N", 1, 64)}}``.
        state: ``"refuse"`` a model that changes its buffers, or make its state ``"explicit"`` inputs and
            outputs, after the others.
        converters: more converters, by the operator's name: ``{"cumsum.default": f(node, importer)}``.

    Raises:
        UsageError: no such file, factory or input.
        ModelError: the model cannot be imported; everything that stands in the way is listed.
    """
    if state not in ("refuse", "explicit"):
        raise UsageError(f"expected state to be 'refuse' or 'explicit', got '{state}'")
    request = _Request(
        examples=example_inputs,
        inputs=parse_inputs(inputs or ()),
        dynamic=dict(dynamic or {}),
        explicit_state=state == "explicit",
        converters=dict(converters or {}),
    )
    if request.inputs and example_inputs is not None:
        raise UsageError("expected example inputs or their descriptions, got both")
    model = _dispatch(source, request)
    model = replace(model, signature=with_levels(model.signature, model.mod))
    for text in model.notes:
        note(text)
    return model


def _dispatch(source: Any, request: _Request) -> Model:
    if isinstance(source, torch.jit.ScriptModule):
        return _load_torchscript(source, request, "a TorchScript module")
    if isinstance(source, torch.nn.Module):
        return _load_module(source, request, type(source).__name__)
    if isinstance(source, torch.export.ExportedProgram):
        return _load_program(source, request, "an exported program")
    if isinstance(source, (str, Path)):
        return _load_text(str(source), request)
    if isinstance(source, type) and issubclass(source, torch.nn.Module):
        raise UsageError(
            f"expected a model, got the class {source.__name__}; make an instance: {source.__name__}(...)"
        )
    raise UsageError(
        "expected an nn.Module, an ExportedProgram, a file or 'package.module:factory', "
        f"got {type(source).__name__}"
    )


def _load_text(text: str, request: _Request) -> Model:
    path = Path(text)
    if path.suffix in _SUFFIXES and (path.is_file() or ":" not in text):
        return _load_file(path, request)
    if is_factory_text(text):
        made = make_module(text)
        request = replace(request, factory=made.name)
        if request.examples is None and not request.inputs and made.examples is not None:
            request = replace(request, examples=made.examples)
        if isinstance(made.module, torch.export.ExportedProgram):
            return _load_program(made.module, request, text)
        return _load_module(made.module, request, text)
    known = ", ".join(_SUFFIXES)
    if path.is_file():
        raise UsageError(f"expected a model file ({known}) or package.module:factory, got '{text}'")
    hint = f"{text[:-3]}.py:factory" if text.endswith(".py") else "package.module:factory"
    raise UsageError(f"cannot find the model '{text}': it is no file ({known}) and not of the form {hint}")


def _load_file(path: Path, request: _Request) -> Model:
    if not path.is_file():
        near = [each.name for each in path.parent.glob(f"*{path.suffix}")] if path.parent.is_dir() else []
        raise UsageError(f"cannot find the model file '{path}'{did_you_mean(path.name, near)}")
    if path.suffix == ".pt2":
        return _load_program(read_program(path), request, str(path))
    if path.suffix == ".onnx":
        if request.explicit_state or request.converters or request.examples is not None:
            raise UsageError("state, converters and example inputs do not apply to an ONNX file; use inputs=")
        return read_onnx(path, request.inputs, request.dynamic)
    if path.suffix == SUFFIX:
        if request.explicit_state or request.converters or request.examples is not None or request.inputs:
            raise UsageError("a quantized model (.kq) is read as it is; inputs and state were settled before")
        return read_model(path)
    return _load_torchscript(read_torchscript(path), request, str(path))


def _load_module(module: Any, request: _Request, origin: str) -> Model:
    if isinstance(module, torch.jit.ScriptModule):
        return _load_torchscript(module, request, origin)
    # What is compiled no longer observes: neither may what it is compared with.
    module = freeze_fake_quantize(module)
    arguments, varying = _arguments(module, request, origin)
    program, assigned = export(module, arguments, varying)
    lost = [name for name in assigned if name in program.constants]
    if lost:
        raise ModelError(
            f"forward changes the attribute{'s' if len(lost) > 1 else ''} self.{', self.'.join(lost)}, which "
            "it also reads: that is state, and a compiled library keeps none between calls; "
            "register_buffer() it and import with state='explicit', or make it an input and an output"
        )
    kept = [f"forward assigns self.{name}; the library does not" for name in assigned]
    return import_program(
        program,
        origin=origin,
        module=module,
        examples=arguments,
        varying=varying,
        explicit_state=request.explicit_state,
        converters=request.converters,
        notes=kept,
        ranges=_ranges(request.inputs, _tensor_names(program)),
    )


def _arguments(module: Any, request: _Request, origin: str) -> tuple[Arguments, Varying]:
    """Choose the example inputs: the user's, those described as text, or the family's own."""
    dynamic = dict(request.dynamic)
    if request.inputs:
        arguments = from_texts(module, request.inputs)
        dynamic = {**varying_of_texts(request.inputs), **dynamic}
        if not arguments.kwargs:
            dynamic = _by_position(request.inputs, dynamic)
    elif request.examples is not None:
        arguments = bind(module, accept_examples(request.examples, module))
    else:
        declared = declared_examples(module, request.factory)
        if declared is None:
            raise _no_examples(module, origin)
        arguments = bind(module, Arguments(*declared))
    options = default_options(module, bound_arguments(module, arguments))
    if options:
        arguments = bind(module, Arguments(arguments.args, {**arguments.kwargs, **options}))
    return arguments, find_varying(module, arguments, dynamic)


def _by_position(inputs: Sequence[InputText], dynamic: Mapping[str, Any]) -> dict[str, Any]:
    """Key symbolic axes by ``args`` where forward takes only ``*args``."""
    axes = tuple(dynamic.get(each.name) for each in inputs)
    return {"args": axes} if any(axes) else {}


def _no_examples(module: Any, origin: str) -> UsageError:
    names = [
        p.name
        for p in forward_signature(module).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ] or ["x"]
    example = " ".join(f"--input {name}=1x3x224x224:float32" for name in names)
    return UsageError(
        f"no example inputs for {origin}: {type(module).__name__}.forward takes {', '.join(names)}, "
        f"and their shapes and dtypes are not known; give them, for example {example} "
        "(Python: example_inputs=...), or let the factory return (module, example inputs)"
    )


def _tensor_names(program: Any) -> list[str]:
    return list(program.graph_signature.user_inputs)


def _ranges(inputs: Sequence[InputText], names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the bounds of random values by the input's name in the signature."""
    known = {each.name: each.bounds for each in inputs if each.bounds is not None}
    if all(name in names for name in known):
        return known
    return {name: each.bounds for name, each in zip(names, inputs, strict=False) if each.bounds is not None}


def _load_program(program: Any, request: _Request, origin: str) -> Model:
    """Import an exported program; its inputs are what they were exported with."""
    if request.inputs:
        raise UsageError(f"{origin} was exported with fixed input shapes; describe inputs when exporting it")
    if request.examples is not None:
        arguments: Arguments | None = accept_examples(request.examples, module_of_program(program))
    elif program.example_inputs is not None:
        arguments = Arguments(*program.example_inputs)
    else:
        arguments = None
    varying = None
    if request.dynamic:
        if arguments is None:
            raise UsageError(f"{origin} holds no example inputs, so dynamic cannot name its dimensions")
        varying = find_varying(module_of_program(program), arguments, request.dynamic)
    return import_program(
        program,
        origin=origin,
        examples=arguments,
        varying=varying,
        explicit_state=request.explicit_state,
        converters=request.converters,
    )


def _load_torchscript(module: Any, request: _Request, origin: str) -> Model:
    arguments, _ = _arguments(module, request, origin)
    if request.dynamic or any(axis.name for each in request.inputs for axis in each.axes):
        raise UsageError(f"{origin}: TorchScript is converted with fixed shapes; give numbers only")
    program = export_torchscript(module, arguments, origin)
    names = list(bound_arguments(module, arguments))
    return import_program(
        program,
        origin=origin,
        module=module,
        examples=arguments,
        explicit_state=request.explicit_state,
        converters=request.converters,
        ranges=_ranges(request.inputs, names),
        input_names=names if len(names) == len(program.graph_signature.user_inputs) else (),
    )
