"""From the graph of an exported program to one Relax function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import tvm
from tvm import relax, tirx
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from compiler.frontend.converters.registry import tvm_dtype
from compiler.frontend.converters.symbols import to_tir
from compiler.frontend.interface import Interface
from compiler.frontend.location import locate_node
from compiler.frontend.unsupported import Trouble, operator_name, unsupported_error
from compiler.frontend.widen import widen_tensor
from compiler.ir.layers import hint
from compiler.support.errors import KilnError, ModelError

Converter = Callable[[Any, Any], Any]

# Runtime checks of sizes that the signature already states; as calls they would forbid fusion.
_CHECKS = (
    "_assert_async.default",
    "_assert_async.msg",
    "_assert_scalar.default",
    "_assert_tensor_metadata.default",
    "sym_constrain_range.default",
    "sym_constrain_range_for_size.default",
)

# The alignment in bytes that generated code assumes of every buffer (TVM's kAllocAlignment).
_ALIGNMENT = 64


class _NamingBuilder(relax.BlockBuilder):  # type: ignore[misc]
    """Names variables by the fx `node` that is converted."""

    node = ""

    def emit(self, expr: Any, name_hint: str = "") -> Any:
        """Bind `expr`."""
        return super().emit(expr, name_hint or hint(self.node))


class Importer(ExportedProgramImporter):  # type: ignore[misc]
    """TVM's importer with Kiln's converters only, and troubles collected instead of raised.

    `env` maps each fx node to its Relax expression.
    """

    def __init__(self, converters: Mapping[str, Converter]) -> None:
        super().__init__()
        self.converters = converters
        self.troubles: list[Trouble] = []
        self.block_builder = _NamingBuilder()
        self.sizes: dict[str, Any] = {}

    def convert(self, node: Any) -> None:
        """Convert one node into `env`.

        A failure is noted, and a variable of the right type stands in so that what follows is examined too.
        """
        if node.op == "get_attr":
            self.env[node] = self._attribute(node)
        elif node.op == "call_function" and node.target.__name__ not in _CHECKS:
            self.block_builder.node = node.name
            try:
                self.env[node] = self.converters[node.target.__name__](node, self)
            except Exception as error:
                reason = (
                    str(error) if isinstance(error, KilnError) else f"{type(error).__name__}: {_line(error)}"
                )
                self.troubles.append(Trouble(operator_name(node), reason, locate_node(node)))
                self.env[node] = self._stand_in(node.meta.get("val"))

    def _attribute(self, node: Any) -> Any:
        value = node.graph.owning_module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return constant(value) if isinstance(value, torch.Tensor) else value

    def _stand_in(self, val: Any) -> Any:
        if isinstance(val, (tuple, list)):
            return relax.Tuple([self._stand_in(each) for each in val if isinstance(each, torch.Tensor)])
        if isinstance(val, torch.Tensor):
            return relax.Var("failed", relax.TensorType(dtype=tvm_dtype(val.dtype), ndim=val.dim()))
        return val


def constant(tensor: Any) -> Any:
    """Give a torch tensor as a Relax constant, sharing its memory where the layout allows it."""
    dense = tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
    dense = widen_tensor(dense).cpu().resolve_conj().resolve_neg().contiguous()
    if dense.data_ptr() % _ALIGNMENT or dense.dtype == torch.bool:
        return relax.const(dense.numpy(), tvm_dtype(dense.dtype))
    return relax.const(tvm.runtime.from_dlpack(dense))


def translate(
    program: Any,
    interface: Interface,
    converters: Mapping[str, Converter],
    origin: str,
    outputs: Sequence[Any] | None = None,
) -> tvm.IRModule:
    """Translate a decomposed program into a module with one function ``main``.

    `outputs` are the fx nodes that ``main`` returns, by default the program's own outputs.

    Raises:
        ModelError: a converter failed; every failure is listed.
    """
    importer = Importer(converters)
    sizes = _Sizes(program, interface)
    nodes = list(program.graph.nodes)
    returned = list(outputs) if outputs is not None else [slot.node for slot in interface.outputs]
    builder = importer.block_builder
    parameters = {slot.node: sizes.parameter(slot) for slot in interface.inputs}
    with builder.function("main", list(parameters.values()), attrs=sizes.bounds()), ExitStack() as stack:
        if not any(getattr(node.target, "__name__", "") == "cond" for node in nodes):
            stack.enter_context(builder.dataflow())
        for node, value in interface.placeholders:
            if node in parameters:
                importer.env[node] = sizes.refined(builder, node, parameters[node])
            elif node.users:
                importer.env[node] = constant(value) if isinstance(value, torch.Tensor) else value
        importer.sizes = sizes.known
        for node in nodes:
            importer.convert(node)
        result = builder.emit_output(relax.Tuple([_returned(importer, node) for node in returned]))
        stack.close()
        builder.emit_func_output(result)
    if importer.troubles:
        raise unsupported_error(importer.troubles, origin)
    return rename_sizes(builder.get(), sizes.names)


def _returned(importer: Importer, node: Any) -> Any:
    value = importer.env[node]
    # A constant or a parameter may be returned as it is; the output still has to be a variable.
    return importer.block_builder.emit(value) if isinstance(value, tvm.ir.GenericConst) else value


class _Sizes:
    """Symbolic sizes of one function: torch's symbols, their TIR variables, and where they are defined."""

    def __init__(self, program: Any, interface: Interface) -> None:
        self.names = dict(interface.symbols)
        self.ranges = {str(symbol): interval for symbol, interval in program.range_constraints.items()}
        self.known = {symbol: tirx.Var(symbol, "int64") for symbol in self.names}
        self.solved: dict[str, Any] = {}
        self.wholes: dict[str, str] = {}
        plain = [
            size
            for slot in interface.inputs
            for size in slot.node.meta["val"].shape
            if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol
        ]
        self.defined = {str(size.node.expr) for size in plain}

    def parameter(self, slot: Any) -> Any:
        """Make the parameter of an input.

        A size such as ``8*h`` where no input has the dimension ``h`` itself becomes a variable of its own,
        and every other size is computed from that: ``h`` is ``extent // 8``.
        """
        val = slot.node.meta["val"]
        shape = [self._extent(size, slot, position) for position, size in enumerate(val.shape)]
        return relax.Var(slot.name, relax.TensorType(shape, tvm_dtype(val.dtype)))

    def _extent(self, size: Any, slot: Any, position: int) -> Any:
        if not isinstance(size, torch.SymInt):
            return int(size)
        expr = size.node.expr
        unknown = {str(s) for s in expr.free_symbols} - self.defined
        if not unknown:
            return to_tir(expr, self.known)
        factor, offset, symbol = _linear(expr, slot.name)
        whole = tirx.Var(f"{slot.name}_extent{position}", "int64")
        self.wholes[str(expr)] = whole.name
        if symbol not in self.solved:
            self.solved[symbol] = tirx.floordiv(whole - offset, tirx.IntImm("int64", factor))
            self.known[symbol] = self.solved[symbol]
        return whole

    def refined(self, builder: Any, node: Any, parameter: Any) -> Any:
        """Give the parameter its size as a multiple, which also checks at run time that it is one."""
        val = node.meta["val"]
        if not any(str(symbol) in self.solved for size in val.shape for symbol in _free_symbols(size)):
            return parameter
        shape = [
            to_tir(s.node.expr, self.known) if isinstance(s, torch.SymInt) else int(s) for s in val.shape
        ]
        return builder.match_cast(parameter, relax.TensorType(shape, tvm_dtype(val.dtype)))

    def bounds(self) -> dict[str, Any]:
        """Return the function attributes that bound the symbolic sizes, by their public names."""
        lower, upper = {}, {}
        for symbol, name in [*self.names.items(), *self.wholes.items()]:
            interval = self.ranges.get(symbol)
            if interval is None or symbol in self.solved:
                continue
            lower[name] = max(1, int(interval.lower))
            if "oo" not in str(interval.upper) and int(interval.upper) < 2**62:
                upper[name] = int(interval.upper)
        attrs: dict[str, Any] = {}
        if lower:
            attrs["tir_var_lower_bound"] = lower
        if upper:
            attrs["tir_var_upper_bound"] = upper
        return attrs


def _free_symbols(size: Any) -> Sequence[Any]:
    return list(size.node.expr.free_symbols) if isinstance(size, torch.SymInt) else []


def _linear(expr: Any, name: str) -> tuple[int, int, str]:
    """Split ``factor * symbol + offset``; raise `ModelError` for anything else."""
    symbols = list(expr.free_symbols)
    if len(symbols) == 1:
        symbol = symbols[0]
        factor, offset = expr.coeff(symbol), expr.subs(symbol, 0)
        if factor.is_Integer and offset.is_Integer and int(factor) > 0 and expr == factor * symbol + offset:
            return int(factor), int(offset), str(symbol)
    raise ModelError(
        f"input '{name}' has the size {expr}, from which its symbols cannot be computed; "
        "let each varying size be a dimension, or a multiple of one"
    )


def rename_sizes(mod: tvm.IRModule, names: Mapping[str, str]) -> tvm.IRModule:
    """Give the symbolic sizes of ``main`` their public names."""
    main = mod["main"]
    present = {str(var.name) for var in relax.analysis.free_symbolic_vars(main)} | {
        str(var.name) for var in relax.analysis.defined_symbolic_vars(main)
    }
    renamed = {old: tirx.Var(new, "int64") for old, new in names.items() if old in present and old != new}
    if renamed:
        mod["main"] = main.bind_symbolic_vars(renamed)
    return mod


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
