"""How a converter is written: one function from an ATen call to a Relax expression.

A converter names the operators it stands for and the schema arguments it reads; the registry binds
positional arguments, keywords and defaults from the operator's own schema and replaces graph nodes
by the Relax expressions already made for them::

    @converter("cumsum.default")
    def cumsum(call: Call, self: relax.Expr, dim: int) -> relax.Expr: ...

Whatever a converter gives is compared with what PyTorch's own shape and type propagation recorded on
the node (``node.meta["val"]``): a result of another rank, dtype or static size is an error, so an
import that goes wrong stops here instead of computing a wrong number.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import fx
from tvm import relax, sym, tirx

from compiler.frontend.converters.symbols import Dim, dim_of
from compiler.support.errors import ModelError

Converter = Callable[..., Any]
Raw = Callable[[fx.Node, Any], Any]

_DTYPES: dict[torch.dtype, str] = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.int16: "int16",
    torch.int8: "int8",
    torch.uint8: "uint8",
    torch.uint16: "uint16",
    torch.uint32: "uint32",
    torch.uint64: "uint64",
    torch.bool: "bool",
}

REGISTRY: dict[str, Raw] = {}


def tvm_dtype(dtype: torch.dtype) -> str:
    """Name TVM's type for a torch dtype; raise `ModelError` for complex and quantized types."""
    if dtype not in _DTYPES:
        raise ModelError(
            f"expected a real number, integer or bool tensor, got {dtype}, which Kiln cannot compute"
        )
    return _DTYPES[dtype]


def dtype_of(x: relax.Expr) -> str:
    """Return the element type of a tensor expression, such as ``"float32"``."""
    return str(x.ty.dtype.dtype)


def shape_of(x: relax.Expr) -> list[Dim]:
    """Return the dimensions of a tensor expression: Python ints where known, TIR expressions elsewhere."""
    return [int(d) if isinstance(d, tirx.IntImm) else d for d in x.ty.shape.values]


def is_float(dtype: str) -> bool:
    """Tell whether `dtype` is a floating-point type."""
    return "float" in dtype


class Call:
    """One ATen call under conversion: the node, the block under construction, and what it must give."""

    def __init__(self, node: fx.Node, importer: Any) -> None:
        self.node = node
        self.importer = importer
        self.val = node.meta.get("val")

    @property
    def dtype(self) -> str:
        """Element type of the (first) output."""
        val = self.val[0] if isinstance(self.val, (tuple, list)) else self.val
        return tvm_dtype(val.dtype)

    @property
    def shape(self) -> list[Dim]:
        """Shape of the (first) output."""
        val = self.val[0] if isinstance(self.val, (tuple, list)) else self.val
        return self.dims(val.shape)

    def dims(self, sizes: Sequence[Any]) -> list[Dim]:
        """Translate torch sizes (ints and SymInts) into Relax dimensions."""
        return [dim_of(s, self.importer) for s in sizes]

    def emit(self, expr: relax.Expr) -> relax.Var:
        """Bind `expr` in the block under construction."""
        return self.importer.block_builder.emit(expr)

    def cast(self, x: relax.Expr, dtype: str) -> relax.Expr:
        """Convert `x` to `dtype`; nothing is emitted where it has that type already."""
        return x if dtype_of(x) == dtype else self.emit(relax.op.astype(x, dtype))

    def tensor(self, value: Any, dtype: str) -> relax.Expr:
        """Give `value` (a tensor expression, Python number or symbolic integer) as a tensor of `dtype`."""
        if isinstance(value, relax.Expr) and isinstance(value.ty, relax.TensorType):
            return self.cast(value, dtype)
        if isinstance(value, (bool, int, float)):
            return scalar(value, dtype)
        whole = self.emit(relax.op.shape_to_tensor(relax.ShapeExpr([value])))
        return self.cast(self.emit(relax.op.squeeze(whole, axis=[0])), dtype)


def array(values: Any, dtype: str | None = None) -> relax.Expr:
    """Make a constant of a numpy array, by default of its own type (``relax.const`` narrows int64)."""
    numbers = np.array(values, dtype=dtype, order="C")
    return relax.const(numbers, str(numbers.dtype))


def scalar(value: bool | int | float, dtype: str) -> relax.Expr:
    """Make a rank-zero constant, wrapping integers into `dtype` as PyTorch does."""
    if dtype == "bfloat16":
        return relax.const(float(value), dtype)
    if is_float(dtype) or dtype == "bool":
        return relax.const(np.array(value, dtype=dtype), dtype)
    return relax.const(np.array(int(value)).astype(dtype), dtype)


def converter(*names: str) -> Callable[[Converter], Converter]:
    """Register a function as the converter of ATen operators, by ``node.target.__name__``."""

    def register(function: Converter) -> Converter:
        wanted = tuple(inspect.signature(function).parameters)[1:]
        raw = _checked(lambda node, importer: function(Call(node, importer), **_bind(node, importer, wanted)))
        for name in names:
            if name in REGISTRY:
                raise AssertionError(f"two converters for {name}")
            REGISTRY[name] = raw
        return function

    return register


def _bind(node: fx.Node, importer: Any, wanted: tuple[str, ...]) -> dict[str, Any]:
    """Return the schema arguments named in `wanted`, defaults filled in and nodes replaced."""
    bound = {}
    for position, argument in enumerate(node.target._schema.arguments):
        if argument.name not in wanted:
            continue
        if position < len(node.args):
            value = node.args[position]
        else:
            value = node.kwargs.get(argument.name, argument.default_value)
        bound[argument.name] = resolve(value, importer)
    return bound


def resolve(value: Any, importer: Any) -> Any:
    """Replace graph nodes inside an argument by what the importer made of them."""
    if isinstance(value, fx.Node):
        return importer.env[value]
    if isinstance(value, (tuple, list)):
        return [resolve(v, importer) for v in value]
    return value


def _checked(raw: Raw) -> Raw:
    @wraps(raw)
    def convert(node: fx.Node, importer: Any) -> Any:
        result = pin(raw(node, importer), node.meta.get("val"), importer)
        _compare(result, node.meta.get("val"), node)
        return result

    return convert


def pin(result: Any, expected: Any, importer: Any) -> Any:
    """Give `result` the symbolic sizes PyTorch recorded where Relax cannot prove them.

    A slice of ``[1, min(S, 64)]`` is ``[1, S]`` to PyTorch, which knows that S is at most 64; a reshape (a
    view at run time, which checks the size) says so, and what follows can be broadcast with ``[N, S]``.
    Not a match_cast: TVM's memory passes crash on one that follows a call.
    """
    if isinstance(expected, (tuple, list)) and isinstance(result, (tuple, list)):
        return [pin(one, want, importer) for one, want in zip(result, expected, strict=True)]
    if not isinstance(expected, torch.Tensor) or not isinstance(
        getattr(result, "ty", None), relax.TensorType
    ):
        return result
    known = result.ty.shape
    if known is None:
        raise ModelError(
            f"the sizes {list(expected.shape)} cannot be inferred in Relax; export with fixed sizes there"
        )
    if not any(isinstance(size, torch.SymInt) for size in expected.shape):
        return result
    wanted = [dim_of(size, importer) for size in expected.shape]
    if len(known.values) != len(wanted) or _proven(known.values, wanted):
        return result
    return importer.block_builder.emit(relax.op.reshape(result, wanted))


def _proven(known: Sequence[Any], wanted: Sequence[Dim]) -> bool:
    """Whether the symbolic sizes of `known` are provably `wanted`; fixed ones are compared elsewhere."""
    analyzer = sym.Analyzer()
    return all(
        analyzer.can_prove_equal(got, want)
        for got, want in zip(known, wanted, strict=True)
        if not isinstance(got, tirx.IntImm) or not isinstance(want, int)
    )


def _compare(result: Any, expected: Any, node: fx.Node) -> None:
    """Raise `ModelError` unless `result` has the rank, dtype and static sizes PyTorch recorded."""
    if isinstance(expected, (tuple, list)) and isinstance(result, (tuple, list)):
        for one, want in zip(result, expected, strict=True):
            _compare(one, want, node)
        return
    if not isinstance(expected, torch.Tensor) or result is None:
        return
    got_dtype, want_dtype = dtype_of(result), tvm_dtype(expected.dtype)
    got, want = shape_of(result), list(expected.shape)
    same = len(got) == len(want) and all(
        g == w for g, w in zip(got, want, strict=True) if isinstance(g, int) and isinstance(w, int)
    )
    if got_dtype != want_dtype or not same:
        raise ModelError(
            f"expected {node.target} ({node.name}) to give {want_dtype}{want}, got {got_dtype}{got}: "
            "its converter is wrong; please report it"
        )
