"""What an exported program takes and gives: its weights, inputs, state, outputs and symbolic dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from compiler.frontend.arguments import Varying
from compiler.frontend.location import locate_node
from compiler.frontend.output_tree import name_outputs
from compiler.support.errors import ModelError
from compiler.support.signature import Dim, Signature, TensorSpec


@dataclass(frozen=True)
class Slot:
    """A tensor that crosses the border of the graph: its public name and its fx node."""

    name: str
    node: Any


@dataclass(frozen=True)
class Interface:
    """How the graph of a program is called.

    `placeholders` pairs each placeholder node, in order, with the tensor it is bound to (a weight or
    buffer), with ``None`` (an input) or with the Python value that was baked in. `inputs` and `outputs`
    are the public tensors, state last. `state` holds the initial values of the state inputs. `symbols`
    names torch's size symbols, `tree` is `Signature.output_tree`.
    """

    placeholders: tuple[tuple[Any, Any], ...]
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    state: tuple[Any, ...]
    fixed: tuple[tuple[str, Any], ...]
    symbols: Mapping[str, str]
    tree: Any


def read_interface(
    program: Any, varying: Varying | None, explicit_state: bool, names: Sequence[str] = ()
) -> Interface:
    """Read the interface of a decomposed ExportedProgram; `names` are the inputs' where torch lost them.

    Raises:
        ModelError: the model keeps state and `explicit_state` is false, or an input or output is neither
            a tensor nor a Python constant.
    """
    mutated = _mutations(program)
    if mutated and not explicit_state:
        raise _stateful(program, mutated)
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    placeholders: list[tuple[Any, Any]] = []
    inputs: list[Slot] = []
    state: list[Slot] = []
    initial: list[Any] = []
    fixed: list[tuple[str, Any]] = []
    for spec in program.graph_signature.input_specs:
        node = nodes[spec.arg.name]
        value = _value_of(program, spec)
        if spec.kind is torch.export.graph_signature.InputKind.USER_INPUT:
            if isinstance(node.meta.get("val"), torch.Tensor):
                inputs.append(Slot(names[len(inputs)] if names else node.name, node))
            else:
                fixed.append((node.name, value))
        elif spec.target in mutated:
            state.append(Slot(str(spec.target).replace(".", "_"), node))
            initial.append(value)
            value = None
        placeholders.append((node, value))
    outputs, tree = _outputs(program)
    changed = [Slot(f"{name.replace('.', '_')}_out", node) for name, node in mutated.items()]
    if changed:
        tree = {"tuple": [tree, *["*"] * len(changed)]}
    return Interface(
        placeholders=tuple(placeholders),
        inputs=(*inputs, *state),
        outputs=(*outputs, *changed),
        state=tuple(initial),
        fixed=tuple(fixed),
        symbols=_name_symbols(program, varying, inputs),
        tree=tree,
    )


def _mutations(program: Any) -> dict[str, Any]:
    """Return the nodes of the new values of mutated buffers, parameters and inputs, by name."""
    kinds = torch.export.graph_signature.OutputKind
    nodes = {node.name: node for node in program.graph.nodes}
    changing = (kinds.BUFFER_MUTATION, kinds.USER_INPUT_MUTATION, getattr(kinds, "PARAMETER_MUTATION", None))
    return {
        str(spec.target): nodes[spec.arg.name]
        for spec in program.graph_signature.output_specs
        if spec.kind in changing and not _unchanged(spec, nodes)
    }


def _unchanged(spec: Any, nodes: Mapping[str, Any]) -> bool:
    return bool(nodes[spec.arg.name].op == "placeholder" and nodes[spec.arg.name].name == spec.target)


def _stateful(program: Any, mutated: Mapping[str, Any]) -> ModelError:
    inputs = set(program.graph_signature.user_inputs)
    lines = [
        f"  {'input' if name in inputs else 'buffer'} '{name}' is changed in {locate_node(node)}"
        for name, node in mutated.items()
    ]
    return ModelError(
        "the model changes its own state, and a compiled library keeps none between calls:\n"
        + "\n".join(lines)
        + "\nmake the state inputs and outputs of forward, or import with state='explicit' "
        "(--state explicit), which appends them to the inputs and outputs"
    )


def _value_of(program: Any, spec: Any) -> Any:
    """Return the tensor bound to a lifted placeholder, the constant of a fixed input, None for a tensor."""
    kinds = torch.export.graph_signature.InputKind
    if spec.kind is kinds.USER_INPUT:
        if type(spec.arg).__name__ == "TensorArgument":
            return None
        if type(spec.arg).__name__ == "ConstantArgument":
            return spec.arg.value
        raise ModelError(
            f"input '{spec.arg.name}' is a number that varies ({type(spec.arg).__name__}); "
            "make it a tensor, or a fixed Python number"
        )
    if spec.kind is kinds.PARAMETER:
        return program.state_dict[spec.target]
    if spec.kind is kinds.BUFFER and spec.target in program.state_dict:
        return program.state_dict[spec.target]
    if spec.kind in (kinds.BUFFER, kinds.CONSTANT_TENSOR):
        return program.constants[spec.target]
    raise ModelError(f"the model holds '{spec.target}', a {spec.kind.name}, which has no form in a library")


def _outputs(program: Any) -> tuple[list[Slot], Any]:
    kinds = torch.export.graph_signature.OutputKind
    specs = program.graph_signature.output_specs
    results = next(node for node in program.graph.nodes if node.op == "output").args[0]
    user = [
        result
        for spec, result in zip(specs, results, strict=True)
        if spec.kind in (kinds.USER_OUTPUT, kinds.LOSS_OUTPUT)
    ]
    for value in user:
        if isinstance(value, torch.fx.Node) and not isinstance(value.meta.get("val"), torch.Tensor):
            raise ModelError(
                f"forward gives the size '{value.meta.get('val')}' computed in {locate_node(value)}; "
                "outputs must be tensors (torch.tensor(x.shape[0])) or Python constants"
            )
    names, tree = name_outputs(program.call_spec.out_spec, [isinstance(v, torch.fx.Node) for v in user], user)
    tensors = [value for value in user if isinstance(value, torch.fx.Node)]
    if not tensors:
        raise ModelError("forward gives no tensor, so there is nothing to compile; return its result")
    return [Slot(name, node) for name, node in zip(names, tensors, strict=True)], tree


def _name_symbols(program: Any, varying: Varying | None, inputs: Sequence[Slot]) -> dict[str, str]:
    """Name torch's size symbols as the user did, others after the first input dimension that has them."""
    names: dict[str, str] = {}
    if varying is not None:
        specs = program.graph_signature.user_inputs
        by_name = {slot.node.name: slot.node for slot in inputs}
        for input_name, axes in zip(specs, varying.leaves, strict=True):
            for position, axis in axes.items():
                size = by_name[input_name].meta["val"].shape[position]
                for symbol in _symbols(size):
                    names.setdefault(symbol, str(axis.name))
    for slot in inputs:
        for position, size in enumerate(slot.node.meta["val"].shape):
            for symbol in _symbols(size):
                names.setdefault(symbol, f"{slot.name}_dim{position}")
    return names


def _symbols(size: Any) -> list[str]:
    return sorted(map(str, size.node.expr.free_symbols)) if isinstance(size, torch.SymInt) else []


def make_signature(program: Any, interface: Interface) -> Signature:
    """Describe inputs and outputs; a dimension derived from others is written as ``2*N``."""
    ranges: dict[str, tuple[int, int | None]] = {}
    for symbol, interval in program.range_constraints.items():
        if str(symbol) in interface.symbols:
            ranges[interface.symbols[str(symbol)]] = (max(1, int(interval.lower)), _upper(interval))
    return Signature(
        inputs=tuple(_spec(slot, interface) for slot in interface.inputs),
        outputs=tuple(_spec(slot, interface) for slot in interface.outputs),
        output_tree=interface.tree,
        dims=ranges,
    )


def _upper(interval: Any) -> int | None:
    """Return the upper bound of a torch value range, None where it is infinite."""
    if "oo" in str(interval.upper) or int(interval.upper) >= 2**62:
        return None
    return int(interval.upper)


def _spec(slot: Slot, interface: Interface) -> TensorSpec:
    val = slot.node.meta["val"]
    shape = tuple(_dim(size, interface.symbols) for size in val.shape)
    return TensorSpec(slot.name, shape, str(val.dtype).removeprefix("torch."))


def _dim(size: Any, names: Mapping[str, str]) -> Dim:
    if not isinstance(size, torch.SymInt):
        return int(size)
    import sympy  # type: ignore[import-untyped]

    expr = size.node.expr
    renamed = expr.xreplace(
        {s: sympy.Symbol(names.get(str(s), str(s)), integer=True) for s in expr.free_symbols}
    )
    return int(renamed) if renamed.is_Integer else str(renamed)
