"""From an ExportedProgram to a `Model`."""

from __future__ import annotations

import operator
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
import tvm
from tvm import relax

from compiler.frontend.arguments import Arguments, Varying
from compiler.frontend.converters import CONVERTERS, REFUSED, decomposition_table
from compiler.frontend.export import module_of_program, run_module
from compiler.frontend.index_bounds import index_bounds
from compiler.frontend.interface import Interface, make_signature, read_interface
from compiler.frontend.interpret import interpret, to_array
from compiler.frontend.location import module_of
from compiler.frontend.model import Arrays, Model
from compiler.frontend.translate import _CHECKS, Converter, translate
from compiler.frontend.unsupported import find_unsupported, unsupported_error
from compiler.frontend.widen import is_half, widen_graph, widen_tensor
from compiler.support.errors import InternalError, ModelError
from compiler.support.signature import Signature


def import_program(
    program: Any,
    *,
    origin: str,
    module: Any = None,
    examples: Arguments | None = None,
    varying: Varying | None = None,
    explicit_state: bool = False,
    converters: Mapping[str, Converter] | None = None,
    notes: Sequence[str] = (),
    ranges: Mapping[str, tuple[float, float]] | None = None,
    input_names: Sequence[str] = (),
) -> Model:
    """Import an ExportedProgram.

    `module` is what the program was exported from (the reference of the check; without it the program
    itself is), `examples` the user's example inputs, `varying` the names of symbolic dimensions;
    `input_names` replace those of the program.

    Raises:
        ModelError: state, unsupported operators, or outputs that are no tensors; everything that cannot
            be imported is in one error.
    """
    decomposed = _decompose(program)
    half = is_half(decomposed)
    if half:
        widen_graph(decomposed)
    interface = read_interface(decomposed, varying, explicit_state, input_names)
    table = {**CONVERTERS, **(converters or {})}
    troubles = find_unsupported(list(decomposed.graph.nodes), {*table, *_CHECKS}, REFUSED)
    if troubles:
        raise unsupported_error(troubles, origin)
    mod = translate(decomposed, interface, table, origin)
    signature = make_signature(decomposed, interface)
    verify(mod, signature, origin)
    return Model(
        mod=mod,
        signature=signature,
        origin=origin,
        reference=_reference(program, decomposed, interface, module, half),
        examples=_example_arrays(interface, examples),
        notes=(*notes, *_notes(interface, half)),
        ranges={**index_bounds(interface), **(ranges or {})},
        sizes=_example_sizes(interface),
        program=Imported(decomposed, interface, table),
        layers=_layers(decomposed),
    )


class Imported:
    """The decomposed program behind a model, kept to find the layer that differs."""

    def __init__(self, program: Any, interface: Interface, converters: Mapping[str, Converter]) -> None:
        self.program = program
        self.interface = interface
        self.converters = converters

    def debug(self, nodes: Sequence[Any], origin: str) -> tvm.IRModule:
        """Import the program again so that ``main`` returns the values of `nodes`."""
        return translate(self.program, self.interface, self.converters, origin, nodes)

    def interpret(self, arrays: Arrays, nodes: Sequence[Any]) -> list[np.ndarray]:
        """Compute the values of `nodes` in PyTorch."""
        return interpret(self.program, self.interface, arrays, nodes)


def _layers(program: Any) -> dict[str, str]:
    """Return what each node that computes something is in the user's model.

    Where a module is used more than once, what comes before tells one use from another.
    """
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    plain = {node.name: f"{module_of(node)[0]} {_operator(node)}".lstrip() for node in calls}
    uses = Counter(plain[node.name] for node in calls if node.target is not operator.getitem)
    return {node.name: _told_apart(node, plain, uses) for node in calls}


def _told_apart(node: Any, plain: Mapping[str, str], uses: Mapping[str, int]) -> str:
    text = plain[node.name]
    before = next((plain[each.name] for each in node.all_input_nodes if each.name in plain), "")
    return f"{text} after {before}" if uses[text] > 1 and before else text


def _operator(node: Any) -> str:
    """Return what a node's operator is called; of one that gives several results, each is a node."""
    if node.target is operator.getitem:
        return _operator(node.args[0])
    name = str(node.target.__name__).partition(".")[0]
    return "batch_norm" if "batch_norm" in name else name


def _decompose(program: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return program.run_decompositions(decomposition_table())


def verify(mod: tvm.IRModule, signature: Signature, origin: str) -> None:
    """Check that `mod` is well formed and that ``main`` gives the dtypes and ranks of `signature`.

    Raises:
        InternalError: it does not; a converter is wrong.
    """
    try:
        relax.analysis.well_formed(mod)
    except Exception as error:
        raise InternalError(f"the graph imported from {origin} is malformed: {error}") from error
    fields = mod["main"].ret_ty.fields
    if len(fields) != len(signature.outputs):
        raise InternalError(
            f"{origin} has {len(signature.outputs)} outputs, the imported graph {len(fields)}"
        )
    for spec, field in zip(signature.outputs, fields, strict=True):
        dtype = str(field.dtype.dtype)
        if (dtype, int(field.ndim)) != (spec.dtype, len(spec.shape)):
            raise InternalError(
                f"expected output '{spec.name}' of {origin} to be {spec.dtype} of rank {len(spec.shape)}, "
                f"the imported graph gives {dtype} of rank {field.ndim}"
            )


def _reference(
    program: Any, decomposed: Any, interface: Interface, module: Any, half: bool
) -> Callable[[Arrays], list[np.ndarray]]:
    """Return what computes the original on numpy arrays in signature order.

    A half-precision or stateful original is interpreted from its decomposed graph, in float32.
    """
    if half or interface.state or len(interface.outputs) != _count_user_outputs(program):
        return lambda arrays: interpret(
            decomposed, interface, arrays, [slot.node for slot in interface.outputs]
        )
    in_spec = program.call_spec.in_spec
    fixed = dict(interface.fixed)
    order = program.graph_signature.input_specs
    names = [s.arg.name for s in order if s.kind is torch.export.graph_signature.InputKind.USER_INPUT]
    called = module if module is not None else module_of_program(program)

    def reference(arrays: Arrays) -> list[np.ndarray]:
        tensors = iter([torch.from_numpy(np.array(array)) for array in arrays])
        leaves = [fixed[name] if name in fixed else next(tensors).to(_device(called)) for name in names]
        args, kwargs = pytree.tree_unflatten(leaves, in_spec)
        outputs = pytree.tree_leaves(run_module(called, Arguments(args, kwargs)))
        return [to_array(leaf) for leaf in outputs if isinstance(leaf, torch.Tensor)]

    return reference


def _device(module: Any) -> Any:
    first = next(module.parameters(), None)
    return first.device if first is not None else torch.device("cpu")


def _count_user_outputs(program: Any) -> int:
    nodes = {node.name: node for node in program.graph.nodes}
    return sum(
        isinstance(nodes[name].meta.get("val"), torch.Tensor)
        for name in program.graph_signature.user_outputs
        if isinstance(name, str) and name in nodes
    )


def _example_arrays(interface: Interface, examples: Arguments | None) -> tuple[np.ndarray, ...]:
    """Return the user's tensors in signature order, followed by the initial state."""
    if examples is None:
        return ()
    leaves = pytree.tree_leaves((examples.args, examples.kwargs))
    tensors = [to_array(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)]
    tensors += [to_array(widen_tensor(value)) for value in interface.state]
    if len(tensors) != len(interface.inputs):
        raise ModelError(
            f"expected {len(interface.inputs)} example tensors for the inputs "
            f"{', '.join(slot.name for slot in interface.inputs)}; got {len(tensors)}"
        )
    return tuple(tensors)


def _example_sizes(interface: Interface) -> dict[str, int]:
    """Return the extent that each symbolic dimension had when the program was exported."""
    sizes: dict[str, int] = {}
    for slot in interface.inputs:
        for size in slot.node.meta["val"].shape:
            if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol and size.node.has_hint():
                sizes.setdefault(interface.symbols[str(size.node.expr)], int(size.node.hint))
            elif isinstance(size, torch.SymInt) and size.node.has_hint():
                _solve_size(size, interface, sizes)
    return sizes


def _solve_size(size: Any, interface: Interface, sizes: dict[str, int]) -> None:
    expr = size.node.expr
    symbols = list(expr.free_symbols)
    if len(symbols) == 1 and expr.coeff(symbols[0]).is_Integer and expr.coeff(symbols[0]) != 0:
        value = (int(size.node.hint) - int(expr.subs(symbols[0], 0))) // int(expr.coeff(symbols[0]))
        sizes.setdefault(interface.symbols[str(symbols[0])], value)


def _notes(interface: Interface, half: bool) -> list[str]:
    notes = [
        f"input '{name}' is the constant {value!r} inside the library" for name, value in interface.fixed
    ]
    if half:
        notes.append("half precision was imported as float32; choose the precision when compiling")
    if interface.state:
        names = ", ".join(slot.name for slot in interface.inputs[-len(interface.state) :])
        notes.append(f"state is explicit: {names} are inputs, their new values outputs")
    return notes
