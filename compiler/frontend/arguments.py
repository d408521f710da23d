"""How a module is called: example inputs bound to forward's parameters, and which dimensions may vary."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compiler.frontend.input_text import Axis, InputText, make_example
from compiler.support.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Arguments:
    """Positional and keyword arguments of one call, keywords in the order of forward's parameters."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Varying:
    """Axes that may vary: for each tensor of the flattened arguments, its `Axis` by position."""

    leaves: tuple[Mapping[int, Axis], ...]

    def __bool__(self) -> bool:
        return any(self.leaves)


def accept_examples(examples: Any, module: Any = None) -> Arguments:
    """Read example inputs as users write them: one tensor, a sequence, a mapping, or (sequence, mapping).

    A pair is taken as positional and keyword arguments only where `module` has such keywords.
    """
    if isinstance(examples, Arguments):
        return examples
    if isinstance(examples, Mapping):
        return Arguments((), {str(name): _tensors(value) for name, value in examples.items()})
    if isinstance(examples, tuple) and len(examples) == 2 and isinstance(examples[0], (tuple, list)):
        positional, keywords = examples
        if isinstance(keywords, Mapping) and _are_keywords(keywords, module):
            return Arguments(
                tuple(map(_tensors, positional)), {name: _tensors(value) for name, value in keywords.items()}
            )
    if isinstance(examples, (tuple, list)):
        return Arguments(tuple(_tensors(value) for value in examples), {})
    return Arguments((_tensors(examples),), {})


def _are_keywords(names: Mapping[Any, Any], module: Any) -> bool:
    if module is None or not all(isinstance(name, str) for name in names):
        return module is None
    parameters = forward_signature(module).parameters
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values()) or names.keys() <= parameters.keys()


def bind(module: Any, arguments: Arguments) -> Arguments:
    """Put keywords into the order of forward's parameters.

    Raises:
        UsageError: forward cannot be called so: a name it lacks, or an input that is missing.
    """
    signature = forward_signature(module)
    known = list(signature.parameters)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for name in arguments.kwargs:
        if name not in known and not takes_any:
            raise UsageError(
                f"{type(module).__name__}.forward has no input '{name}'{did_you_mean(name, known)} "
                f"(it has: {', '.join(known) or 'none'})"
            )
    try:
        signature.bind(*arguments.args, **arguments.kwargs)
    except TypeError as error:
        raise UsageError(
            f"the example inputs do not fit {type(module).__name__}.forward{signature}: {error}"
        ) from error
    order = {name: position for position, name in enumerate(known)}
    names = sorted(arguments.kwargs, key=lambda name: order.get(name, len(order)))
    return Arguments(arguments.args, {name: arguments.kwargs[name] for name in names})


def forward_signature(module: Any) -> inspect.Signature:
    """Return the signature of ``module.forward``; TorchScript keeps it as a schema."""
    import torch

    if not isinstance(module, torch.jit.ScriptModule):
        return inspect.signature(module.forward)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    arguments = module.forward.schema.arguments[1:]
    return inspect.Signature(
        [
            inspect.Parameter(
                a.name, kind, default=a.default_value if a.has_default_value() else inspect.Parameter.empty
            )
            for a in arguments
        ]
    )


def from_texts(module: Any, inputs: Sequence[InputText]) -> Arguments:
    """Make arguments from inputs described as text.

    Where forward takes only ``*args``, the names cannot be its parameters and the order counts.
    """
    parameters = forward_signature(module).parameters.values()
    made = make_example(inputs)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not named and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return Arguments(tuple(made.values()), {})
    return bind(module, Arguments((), made))


def varying_of_texts(inputs: Sequence[InputText]) -> dict[str, dict[int, Axis]]:
    """Return the symbolic axes of inputs described as text, in the form that `find_varying` takes.

    A range written once, as in ``x=N[1,8]x4 y=Nx4``, holds wherever the name occurs.
    """
    ranges: dict[str, Axis] = {}
    for each in inputs:
        for axis in each.axes:
            if axis.name is not None and (axis.low, axis.high) != (1, None):
                ranges.setdefault(axis.name, axis)
    found: dict[str, dict[int, Axis]] = {}
    for each in inputs:
        symbolic = {i: _with_range(axis, ranges) for i, axis in enumerate(each.axes) if axis.name is not None}
        if symbolic:
            found[each.name] = symbolic
    return found


def _with_range(axis: Axis, ranges: Mapping[str, Axis]) -> Axis:
    known = ranges.get(axis.name or "", axis)
    return Axis(axis.factor, axis.name, known.low, known.high)


def find_varying(module: Any, arguments: Arguments, dynamic: Mapping[str, Any]) -> Varying:
    """Find the axes that `dynamic` names among the flattened arguments.

    `dynamic` maps a parameter of forward to ``{axis: name}``, ``{axis: (name, least, greatest)}`` or
    ``{axis: torch.export.Dim}``; inputs that nest (tuples, dicts) nest the same way.

    Raises:
        UsageError: an unknown input, an axis it does not have, or a name that is no identifier.
    """
    import torch.utils._pytree as pytree

    bound = bound_arguments(module, arguments)
    for name in dynamic:
        if name not in bound:
            raise UsageError(
                f"dynamic names the input '{name}'{did_you_mean(name, bound)} (inputs: {', '.join(bound)})"
            )
    leaves, _ = pytree.tree_flatten_with_path(bound)
    return Varying(tuple(_leaf_axes(path, leaf, dynamic) for path, leaf in leaves))


def bound_arguments(module: Any, arguments: Arguments) -> dict[str, Any]:
    """Return the arguments by the name of forward's parameters, in the order of the call."""
    bound = forward_signature(module).bind(*arguments.args, **arguments.kwargs).arguments
    positional = {name: value for name, value in bound.items() if name not in arguments.kwargs}
    return {**positional, **{name: bound[name] for name in bound if name not in positional}}


def _leaf_axes(path: Sequence[Any], leaf: Any, dynamic: Mapping[str, Any]) -> Mapping[int, Axis]:
    spec: Any = dynamic
    for step in path:
        key = getattr(step, "key", getattr(step, "idx", getattr(step, "name", None)))
        if isinstance(spec, Mapping):
            spec = spec.get(key)
        elif isinstance(spec, (tuple, list)) and isinstance(key, int) and key < len(spec):
            spec = spec[key]
        else:
            spec = None
    if not spec:
        return {}
    where = ".".join(str(getattr(step, "key", getattr(step, "idx", step))) for step in path)
    rank = len(getattr(leaf, "shape", ()))
    items = spec.items() if isinstance(spec, Mapping) else enumerate(spec)
    return {
        _position(axis, rank, where): _named_axis(value, where) for axis, value in items if value is not None
    }


def _position(axis: Any, rank: int, where: str) -> int:
    if not isinstance(axis, int) or not -rank <= axis < rank:
        raise UsageError(f"input '{where}' has {rank} dimensions; dynamic names its dimension {axis!r}")
    return axis % rank


def _named_axis(value: Any, where: str) -> Axis:
    """Read one symbolic dimension: an `Axis`, a name, (name, least, greatest) or a torch Dim."""
    if isinstance(value, Axis):
        return value
    if isinstance(value, str) and value.isidentifier():
        return Axis(1, value)
    if isinstance(value, tuple) and len(value) == 3 and isinstance(value[0], str):
        return Axis(1, value[0], max(1, value[1]), value[2])
    if hasattr(value, "root") and getattr(value, "fn", None) is not None:
        return _derived_axis(value, where)
    if hasattr(value, "min") and hasattr(value, "max") and hasattr(value, "__name__"):
        unbounded = not isinstance(value.max, int) or value.max >= 2**62
        return Axis(1, value.__name__, max(1, int(value.min)), None if unbounded else int(value.max))
    raise UsageError(
        f"expected a name, (name, least, greatest) or torch.export.Dim for a dimension of '{where}', "
        f"got {value!r}"
    )


def _derived_axis(value: Any, where: str) -> Axis:
    """Read a Dim such as ``8 * h``; torch allows offsets too, which no runtime could check."""
    root = _named_axis(value.root, where)
    factor, offset = value.fn(1) - value.fn(0), value.fn(0)
    if offset != 0 or factor < 1:
        raise UsageError(f"expected a dimension or a multiple of one for '{where}', got {value.__name__}")
    return Axis(factor, root.name, root.low, root.high)


def dynamic_shapes(module: Any, arguments: Arguments, varying: Varying) -> Any:
    """Return what ``torch.export.export(dynamic_shapes=)`` takes."""
    import torch
    import torch.utils._pytree as pytree

    if not varying:
        return None
    dims: dict[str, Any] = {}

    def dim(axis: Axis) -> Any:
        known = dims.setdefault(str(axis.name), torch.export.Dim(axis.name, min=axis.low, max=axis.high))
        return known if axis.factor == 1 else axis.factor * known

    bound = bound_arguments(module, arguments)
    _, tree = pytree.tree_flatten(bound)
    leaves = [{i: dim(axis) for i, axis in axes.items()} or None for axes in varying.leaves]
    return pytree.tree_unflatten(leaves, tree)


def examples_to_trace(arguments: Arguments, varying: Varying) -> Arguments:
    """Return the tensors to trace with: no two the same, none of extent 1 along a varying axis.

    torch.export takes such an extent for a constant; the tensor is repeated along the axis.
    """
    import torch
    import torch.utils._pytree as pytree

    leaves, tree = pytree.tree_flatten((arguments.args, arguments.kwargs))
    seen: set[int] = set()

    def widened(leaf: Any, axes: Mapping[int, Axis]) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if id(leaf) in seen:
            # torch.export would take one tensor given twice for one input.
            leaf = leaf.clone()
        seen.add(id(leaf))
        for position, axis in axes.items():
            if leaf.shape[position] == 1 and axis.factor == 1 and axis.high != 1:
                leaf = leaf.repeat_interleave(max(2, axis.low), dim=position)
        return leaf

    args, kwargs = pytree.tree_unflatten(
        [widened(*pair) for pair in zip(leaves, varying.leaves, strict=True)], tree
    )
    return Arguments(args, kwargs)


def _tensors(value: Any) -> Any:
    """Replace numpy arrays by torch tensors, at any depth."""
    import numpy as np
    import torch
    import torch.utils._pytree as pytree

    return pytree.tree_map(
        lambda leaf: torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf, value
    )
