"""``torch.compile(model, backend="kiln")``.

Dynamo hands over a graph whose weights are inputs. Kiln freezes them, which is what makes folding and
packing possible, and compiles again when one of them was replaced or changed in place. PyTorch counts
changes in place, also those of optimizers and ``load_state_dict``, but not those through ``.data`` or
numpy; after such a change call ``torch.compiler.reset()``.

What Kiln cannot compile runs in PyTorch as it is, after one warning: an operator without a converter,
training (grad mode with tensors that require gradients), tensors on another device than the CPU.

Options (``torch.compile(model, backend="kiln", options={...})``): ``threads``, ``check`` (False skips the
comparison with PyTorch) and ``fallback`` (False raises the error instead of running in PyTorch).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from compiler.support.errors import KilnError, KilnWarning, ModelError, UsageError, did_you_mean

Frozen = tuple[torch.Tensor, int]
"""A weight and the count of its changes when it was frozen."""


@dataclass(frozen=True)
class Options:
    """What ``options=`` of torch.compile may hold; see the module's text."""

    threads: int | None = None
    check: bool = True
    fallback: bool = True


def kiln(graph: torch.fx.GraphModule, example_inputs: Sequence[Any], **keywords: Any) -> Any:
    """Compile `graph`; the entry point that Dynamo calls.

    Raises:
        UsageError: an unknown option.
    """
    given = dict(keywords.get("options") or {})
    known = Options.__dataclass_fields__
    for name in given:
        if name not in known:
            raise UsageError(f"unknown option '{name}' of backend 'kiln'{did_you_mean(name, known)}")
    return _Graph(graph, Options(**given))


class _Graph:
    """A graph that is compiled when it is first called, and again when its weights change."""

    def __init__(self, graph: torch.fx.GraphModule, options: Options) -> None:
        self._graph = graph
        self._options = options
        nodes = [node for node in graph.graph.nodes if node.op == "placeholder"]
        self._weights = [i for i, node in enumerate(nodes) if _is_weight(node)]
        self._numbers = [i for i, node in enumerate(nodes) if _is_number(node)]
        self._shapes = {i: shape for i, node in enumerate(nodes) if (shape := _fake_shape(node)) is not None}
        self._symbols = {i: _symbol(node) for i, node in enumerate(nodes) if i not in self._shapes}
        self._frozen: dict[int, Frozen] = {}
        self._known: dict[int, float] = {}
        self._compiled: Any = None
        self._in_pytorch = False
        self._warned = False

    def __call__(self, *args: Any) -> Any:
        if self._in_pytorch:
            return self._graph(*args)
        if reason := self._not_now(args):
            self._warn(reason)
            return self._graph(*args)
        if self._compiled is None or self._weights_changed(args):
            try:
                self._compile(args)
            except KilnError as error:
                if not self._options.fallback:
                    raise
                self._in_pytorch = True
                self._warn(str(error))
                return self._graph(*args)
        return self._compiled(*(args[i] for i in self._tensors))

    @property
    def _tensors(self) -> list[int]:
        """The positions of the inputs that stay inputs."""
        return [i for i in self._shapes if i not in self._weights and i not in self._numbers]

    def _not_now(self, args: Sequence[Any]) -> str:
        """Return why this call cannot be Kiln's, "" if it can."""
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return (
                "gradients may be wanted, and Kiln compiles inference: call the model under torch.no_grad()"
            )
        if device := next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), None):
            return f"expected tensors on the CPU, got one on {device}"
        return ""

    def _weights_changed(self, args: Sequence[Any]) -> bool:
        return any(
            args[i] is not tensor or _changes(tensor) != count for i, (tensor, count) in self._frozen.items()
        ) or any(args[i].item() != number for i, number in self._known.items())

    def _compile(self, args: Sequence[Any]) -> None:
        from compiler.driver import compile as compile_model

        self._compiled = None
        self._frozen = {i: (args[i], _changes(args[i])) for i in self._weights}
        self._known = {i: args[i].item() for i in self._numbers}
        graph = _with_numbers(self._graph, self._known)
        sizes = _sizes(self._symbols, [self._shapes[i] for i in self._tensors])
        module = _WithWeights(graph, args, self._tensors, {i: args[i] for i in self._weights}, sizes)
        dynamic = _dynamic([self._shapes[i] for i in self._tensors])
        with torch.no_grad():
            self._compiled = compile_model(
                module,
                tuple(args[i].detach() for i in self._tensors),
                threads=self._options.threads,
                check=self._options.check,
                dynamic={"tensors": dynamic} if any(dynamic) else None,
            )

    def _warn(self, reason: str) -> None:
        if not self._warned:
            warnings.warn(f"kiln: running in PyTorch: {reason}", KilnWarning, stacklevel=4)
        self._warned = True


class _WithWeights(torch.nn.Module):  # type: ignore[misc]
    """The graph as a module: weights inside, sizes taken from the tensors that have them."""

    def __init__(
        self,
        graph: torch.fx.GraphModule,
        args: Sequence[Any],
        tensors: Sequence[int],
        weights: Mapping[int, torch.Tensor],
        sizes: Mapping[int, tuple[int, int]],
    ) -> None:
        super().__init__()
        self.graph = graph
        self._count = len(args)
        self._tensors = list(tensors)
        self._sizes = dict(sizes)
        self._weights = sorted(weights)
        for i, tensor in weights.items():
            self.register_buffer(f"weight_{i}", tensor.detach())
        self.eval()

    def forward(self, *tensors: torch.Tensor) -> Any:
        """Call the graph with everything that it takes."""
        full: list[Any] = [None] * self._count
        for i, tensor in zip(self._tensors, tensors, strict=True):
            full[i] = tensor
        for i in self._weights:
            full[i] = getattr(self, f"weight_{i}")
        for i, (position, axis) in self._sizes.items():
            full[i] = tensors[position].shape[axis]
        return self.graph(*full)


def _is_weight(node: Any) -> bool:
    """Return whether a placeholder is a parameter or buffer of the user's module."""
    source = getattr(node, "_dynamo_source", None)
    name = getattr(source, "name", "")
    text = name() if callable(name) else str(name)
    return "._parameters[" in text or "._buffers[" in text


def _is_number(node: Any) -> bool:
    """Return whether a placeholder is a Python number that Dynamo put into a tensor, only to be taken out."""
    value = node.meta.get("example_value")
    return (
        isinstance(value, torch.Tensor)
        and value.ndim == 0
        and bool(node.users)
        and all(map(_takes_out, node.users))
    )


def _takes_out(node: Any) -> bool:
    return bool(node.op == "call_method" and node.target == "item")


def _with_numbers(graph: torch.fx.GraphModule, numbers: Mapping[int, float]) -> torch.fx.GraphModule:
    """Return the graph with the numbers, by the position of their input, written into it."""
    if not numbers:
        return graph
    changed = copy.copy(graph)
    changed.graph = copy.deepcopy(graph.graph)
    nodes = [node for node in changed.graph.nodes if node.op == "placeholder"]
    for i, number in numbers.items():
        for item in list(nodes[i].users):
            for user in list(item.users):
                user.args = torch.fx.map_arg(user.args, lambda a, item=item, n=number: n if a is item else a)
                user.kwargs = torch.fx.map_arg(
                    user.kwargs, lambda a, item=item, n=number: n if a is item else a
                )
            changed.graph.erase_node(item)
    changed.recompile()
    return changed


def _fake_shape(node: Any) -> tuple[int | str, ...] | None:
    """Return a placeholder's shape, symbols by name; None for one that is no tensor."""
    value = node.meta.get("example_value")
    if not isinstance(value, torch.Tensor):
        return None
    # A size that was once symbolic and turned out to be fixed still is a SymInt.
    texts = (str(size) for size in value.shape)
    return tuple(int(text) if text.isdigit() else text for text in texts)


def _symbol(node: Any) -> str:
    """Return the name of the symbol that a placeholder stands for, "" if it is none."""
    value = node.meta.get("example_value")
    return str(value) if isinstance(value, torch.SymInt) else ""


def _sizes(symbols: Mapping[int, str], shapes: Sequence[tuple[int | str, ...]]) -> dict[int, tuple[int, int]]:
    """Find, for each input that is an integer, a tensor (by its place in `shapes`) and the axis it measures.

    Raises:
        ModelError: an input that is neither a tensor nor the size of one.
    """
    places = {size: (i, axis) for i, shape in enumerate(shapes) for axis, size in enumerate(shape)}
    for symbol in symbols.values():
        if symbol not in places:
            raise ModelError(
                f"expected tensors and their sizes as inputs of a graph, got {symbol or 'something else'}"
            )
    return {i: places[symbol] for i, symbol in symbols.items()}


def _dynamic(shapes: Sequence[tuple[int | str, ...]]) -> tuple[dict[int, str] | None, ...]:
    """Return the symbolic axes of each tensor, as `compiler.frontend.load` takes them."""
    return tuple(
        {axis: size for axis, size in enumerate(shape) if isinstance(size, str)} or None for shape in shapes
    )


def _changes(tensor: torch.Tensor) -> int:
    """Return how often `tensor` was changed in place, and that it was not given other memory."""
    return hash((-1 if tensor.is_inference() else tensor._version, tensor.data_ptr()))
