"""torch.export with failures that name the user's line instead of torch's."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

from compiler.frontend.arguments import Arguments, Varying, dynamic_shapes, examples_to_trace
from compiler.frontend.location import source_of_error
from compiler.support.errors import ModelError

_ASSIGNED = re.compile(r"The tensor attributes? (?P<names>.+?) (was|were) assigned during export")
_GUARD = "GuardOnDataDependentSymNode"


def export(module: Any, arguments: Arguments, varying: Varying) -> tuple[Any, tuple[str, ...]]:
    """Export `module` in evaluation mode; give the ExportedProgram and the attributes forward assigns.

    Raises:
        ModelError: forward fails on these inputs, or torch cannot trace it.
    """
    import torch

    from compiler.frontend.converters import freeze_fake_quantize, without_quantized_modules

    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError("a TorchScript module is exported by its own reader")
    wide = examples_to_trace(arguments, varying)
    shapes = dynamic_shapes(module, arguments, varying)
    module = without_quantized_modules(freeze_fake_quantize(module))
    with warnings.catch_warnings(record=True) as seen, evaluating(module), quiet():
        warnings.simplefilter("always")
        try:
            program = torch.export.export(module, wide.args, wide.kwargs, dynamic_shapes=shapes, strict=False)
        except Exception as error:
            raise _explain(module, wide, error) from error
    return program, _assigned(seen)


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Put `module` into evaluation mode inside the block, and every submodule back afterwards."""
    training = [each for each in module.modules() if each.training]
    try:
        module.eval()
    except NotImplementedError:
        # Modules made by torch.export refuse eval(); they are what they were exported as.
        yield
        return
    try:
        yield
    finally:
        for each in training:
            each.training = True


def module_of_program(program: Any) -> Any:
    """Make an ExportedProgram callable; its checks of sizes are left to the signature."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return program.module(check_guards=False)
        except TypeError:
            # torch before 2.10 has no such option, and fewer checks.
            return program.module()


def run_module(module: Any, arguments: Arguments) -> Any:
    """Call `module` in evaluation mode without gradients."""
    import torch

    with torch.no_grad(), evaluating(module):
        return module(*arguments.args, **arguments.kwargs)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch from printing graphs and advice while it exports; the error says what matters."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(disabled)


def _assigned(seen: list[warnings.WarningMessage]) -> tuple[str, ...]:
    names: list[str] = []
    for warning in seen:
        match = _ASSIGNED.search(str(warning.message))
        if match:
            names += [name.strip().removeprefix("self.") for name in match["names"].split(",")]
    # Recurrent layers of torch itself keep a private list of their weights.
    return tuple(name for name in names if "._flat_weights" not in f".{name}")


def _explain(module: Any, arguments: Arguments, error: Exception) -> ModelError:
    """Turn a failure of torch.export into one message."""
    name = type(module).__name__
    try:
        run_module(module, arguments)
    except Exception as own:
        where = source_of_error(own)
        return ModelError(
            f"{name}.forward itself fails on inputs {describe(arguments)}: "
            f"{type(own).__name__}: {_first(own)}"
            f"{f' at {where}' if where else ''}; mend the model, or give example inputs that it takes"
        )
    where = _place(error)
    at = f" at {where}" if where else ""
    text = str(error)
    if type(error).__name__ == _GUARD or "data-dependent" in text:
        return ModelError(
            f"{name} decides on the values of a tensor{at} ({_code(text)}): "
            "a compiled graph has no such branch or size; use torch.where or torch.cond, "
            "or make the value a Python constant"
        )
    if "Constraints violated" in text or "onstraint" in text.split("\n", 1)[0]:
        return ModelError(f"a dimension of {name} cannot vary as asked: {_constraints(text)}")
    if "quantized nyi" in text:
        return ModelError(
            f"{name} makes quantized tensors, which torch.export cannot trace; quantize with PT2E instead "
            "(torchao.quantization.pt2e), or give Kiln the model in float and --quantize int8"
        )
    unknown = re.search(r"Found <class '(?P<kind>[^']+)'> in output", text)
    if unknown:
        return ModelError(
            f"{name}.forward gives a {unknown['kind']}, whose tensors are not known; return tensors, "
            "tuples or dicts (for a cache of transformers: use_cache=False), or register it with "
            "torch.utils._pytree.register_pytree_node"
        )
    return ModelError(
        f"torch.export cannot trace {name}{at}: {type(error).__name__}: {_first(error)}; "
        "rewrite that line with torch operators, or leave that part out of the model"
    )


def _place(error: BaseException) -> str:
    """Give the user's file:line of a torch.export error, from its frames or from its text."""
    where = source_of_error(error)
    if where:
        return where
    match = re.search(r'File "(?P<file>[^"]+)", line (?P<line>\d+)', str(error))
    return f"{match['file']}:{match['line']}" if match else ""


def _code(text: str) -> str:
    """Quote the user's line that torch shows below its frame."""
    match = re.search(r'File "[^"]+", line \d+, in [^\n]+\n\s+(?P<code>[^\n]+)', text)
    return f"`{match['code'].strip()}`" if match else _first_line(text)


def _constraints(text: str) -> str:
    """Keep torch's reasons and suggested fixes, without its advice about logs."""
    kept = [line.strip(" -") for line in text.splitlines() if line.strip()]
    reasons = [line.split("If you're using")[0].strip(" .") for line in kept if line.startswith("You marked")]
    fixes = [line for line in kept if re.fullmatch(r"\w+ = .+", line)]
    reasons += [line for line in kept if line.startswith("Not all values")]
    advice = f"; what the model allows: {', '.join(fixes)}" if fixes else ""
    return f"{' '.join(reasons) or _first_line(text)}{advice}"


def describe(arguments: Arguments) -> str:
    """Write the tensors of a call as ``1x3x8x8 float32, ...``."""
    import torch
    import torch.utils._pytree as pytree

    leaves = [
        x for x in pytree.tree_leaves((arguments.args, arguments.kwargs)) if isinstance(x, torch.Tensor)
    ]
    texts = [
        f"{'x'.join(map(str, x.shape)) or 'scalar'} {str(x.dtype).removeprefix('torch.')}" for x in leaves
    ]
    return f"({', '.join(texts)})"


def _first(error: BaseException) -> str:
    return _first_line(str(error)) or "no message"


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else ""
