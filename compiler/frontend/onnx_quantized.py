"""ONNX operators on bytes become pairs of quantize and dequantize around float operators.

    QLinearConv(x, s, z, w, t, y, u, v, b)    ->  QuantizeLinear(Conv(DequantizeLinear(x, s, z),
                                                  DequantizeLinear(w, t, y), b * s * t), u, v)
    Cast(MatMulInteger(q, w, z, y)) * s * t   ->  MatMul(DequantizeLinear(q, s, z), DequantizeLinear(w, t, y))
    DynamicQuantizeLinear(x)                  ->  what it computes, x as one row

These are the two other spellings of quantized networks that ONNX Runtime's tools write; the passes know one.
What is computed is the same but for the rounding of floats: a result is off by at most one quantum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

_ONE_INPUT = {
    "QLinearSigmoid": "Sigmoid",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearSoftmax": "Softmax",
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
}
_TWO_INPUTS = {"QLinearAdd": "Add", "QLinearMul": "Mul", "QLinearMatMul": "MatMul"}
_PRODUCTS = {"MatMulInteger": "MatMul", "ConvInteger": "Conv"}

_OWN = ("channels_last", "opset")
"""Attributes that the operators in float do not have."""

_LEAST_SCALE = 2.0**-63
"""The scale of what is all zeros, whose bytes are 0 in any scale."""

_AXES_ARE_INPUTS = 18
"""The version of ONNX's operators from which on reductions take axes as an input."""


def with_pairs(proto: Any) -> Any:
    """Return the ModelProto `proto` with quantized operators as pairs around float ones.

    What has no such form is left as it is: the importer computes it as it is written or refuses it. `proto`
    is not changed; where there is nothing to do it is returned.
    """
    wanted = {*_ONE_INPUT, *_TWO_INPUTS, *_PRODUCTS, *_OTHERS, "DynamicQuantizeLinear"}
    if not any(node.op_type in wanted for node in proto.graph.node):
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    _Pairs(copy).run()
    return copy


class _Pairs:
    """Rewrites the nodes of one graph in their order."""

    def __init__(self, proto: Any) -> None:
        self._graph = proto.graph
        self._version = max((each.version for each in proto.opset_import if not each.domain), default=1)
        self._nodes: list[Any] = []
        self._tensors = {tensor.name: tensor for tensor in self._graph.initializer}
        self._tensors |= {
            node.output[0]: attribute.t
            for node in self._graph.node
            if node.op_type == "Constant"
            for attribute in node.attribute
            if attribute.name == "value"
        }
        self._names = {name for node in self._graph.node for name in (*node.input, *node.output)}
        self._names |= {value.name for value in (*self._graph.input, *self._graph.initializer)}
        self._readers: dict[str, list[Any]] = {}
        self._makers = {name: node for node in self._graph.node for name in node.output if name}
        for node in self._graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._returned = {value.name for value in self._graph.output}
        self._floats: dict[tuple[str, str, str], str] = {}
        self._products: dict[str, tuple[Any, str, str]] = {}
        """By what a chain of nodes gives: its integer product, and the names of the two scales."""

    def run(self) -> None:
        for node in self._graph.node:
            if node.op_type in _PRODUCTS:
                self._find_product(node)
        for node in self._graph.node:
            if not self._rewrite(node):
                self._nodes.append(node)
        del self._graph.node[:]
        self._graph.node.extend(_alive(self._nodes, self._returned))

    def _rewrite(self, node: Any) -> bool:
        """Write what stands for `node`; tell whether anything does."""
        if len(node.output) == 1 and node.output[0] in self._products:
            return self._product(*self._products[node.output[0]], node.output[0])
        if node.op_type == "DynamicQuantizeLinear":
            return self._at_run_time(node)
        if any(each.name == "channels_last" and each.i for each in node.attribute):
            return False
        if node.op_type in _ONE_INPUT:
            return self._quantized(node, _ONE_INPUT[node.op_type], [node.input[:3]], node.input[3:5])
        if node.op_type in _TWO_INPUTS:
            read = [node.input[:3], node.input[3:6]]
            return self._quantized(node, _TWO_INPUTS[node.op_type], read, node.input[6:8])
        write = _OTHERS.get(node.op_type)
        return write is not None and write(self, node)

    # Operators with scales from calibration

    def _quantized(self, node: Any, op: str, read: Sequence[Sequence[str]], levels: Sequence[str]) -> bool:
        """Write the operator `op` between what it reads in float and the levels of what it gives."""
        if op == "Softmax" and not self._is_own_softmax(node):
            return False
        axes = [0, -1] if op == "MatMul" else [0, 0]
        operands = [self._float(*each, axis=axis) for each, axis in zip(read, axes, strict=False)]
        return self._rounded(node, op, operands, levels)

    def _rounded(self, node: Any, op: str, operands: Sequence[str | None], levels: Sequence[str]) -> bool:
        known = [each for each in operands if each is not None]
        if len(known) < len(operands) or len(levels) < 2 or not all(levels):
            return False
        made = self._emit(op, known, node)
        scale, zero = self._scalar(levels[0]), self._scalar(levels[1])
        self._nodes.append(helper.make_node("QuantizeLinear", [made, scale, zero], [node.output[0]]))
        return True

    def _is_own_softmax(self, node: Any) -> bool:
        """Tell whether the softmax is that of the file's version: it changed in 13."""
        meant = next((each.i for each in node.attribute if each.name == "opset"), self._version)
        return bool((meant < 13) == (self._version < 13))

    def _convolution(self, node: Any) -> bool:
        x, weights = self._float(*node.input[:3], axis=0), self._float(*node.input[3:6], axis=0)
        operands = [x, weights]
        if len(node.input) > 8 and node.input[8]:
            operands.append(self._bias(node.input[8], node.input[1], node.input[4]))
        return self._rounded(node, "Conv", operands, node.input[6:8])

    def _gemm(self, node: Any) -> bool:
        turned = any(each.name == "transB" and each.i for each in node.attribute)
        alpha = next((each.f for each in node.attribute if each.name == "alpha"), 1.0)
        operands = [
            self._float(*node.input[:3], axis=0),
            self._float(*node.input[3:6], axis=0 if turned else -1),
        ]
        if len(node.input) > 6 and node.input[6]:
            operands.append(self._bias(node.input[6], node.input[1], node.input[4], alpha))
        if len(node.input) > 8:
            return self._rounded(node, "Gemm", operands, node.input[7:9])
        known = [each for each in operands if each is not None]
        if len(known) < len(operands):
            return False
        self._emit("Gemm", known, node, node.output[0])
        return True

    def _concat(self, node: Any) -> bool:
        parts = [node.input[start : start + 3] for start in range(2, len(node.input), 3)]
        return self._rounded(node, "Concat", [self._float(*each, axis=0) for each in parts], node.input[:2])

    def _where(self, node: Any) -> bool:
        chosen = [self._float(*node.input[start : start + 3], axis=0) for start in (1, 4)]
        return self._rounded(node, "Where", [node.input[0], *chosen], node.input[7:9])

    def _bias(self, bias: str, scale: str, weight_scale: str, alpha: float = 1.0) -> str | None:
        """Return an int32 bias in float: its step is the product of those of the two sides."""
        value, step, weight_step = (self._array(name) for name in (bias, scale, weight_scale))
        if value is None or step is None or weight_step is None:
            return None
        steps = step.astype("float64").reshape(-1) * weight_step.astype("float64").reshape(-1)
        return self._constant((value * steps * alpha).astype("float32"))

    # Operators with scales computed at run time

    def _at_run_time(self, node: Any) -> bool:
        """Write a quantization to the range of its input, as the operators that the passes look for."""
        (x,), (codes, scale, zero) = node.input, (*node.output, "", "")[:3]
        row = self._emit("Reshape", [x, self._constant(np.array([1, -1]))])
        nothing = self._constant(np.zeros(1, "float32"))
        low = self._emit("Min", [self._reduced("ReduceMin", row), nothing])
        high = self._emit("Max", [self._reduced("ReduceMax", row), nothing])
        spread = self._emit("Sub", [high, low])
        step = self._emit("Mul", [spread, self._constant(np.array(1 / 255, "float32"))])
        step = self._emit("Max", [step, self._constant(np.full(1, _LEAST_SCALE, "float32"))])
        ratio = self._emit("Div", [self._emit("Neg", [low]), step])
        point = self._emit("Cast", [self._emit("Round", [ratio])], to=onnx.TensorProto.UINT8)
        levels = self._emit("QuantizeLinear", [row, step, point], axis=0)
        rounded = self._emit("DequantizeLinear", [levels, step, point], axis=0)
        shape = self._emit("Shape", [x])
        self._floats[codes, scale, zero] = self._emit("Reshape", [rounded, shape])
        # For those who read them otherwise. The scale of zeros is 1 there.
        self._emit("Reshape", [levels, shape], output=codes)
        single = self._constant(np.array([], "int64"))
        if scale:
            empty = self._emit("Equal", [spread, nothing])
            one = self._constant(np.ones(1, "float32"))
            self._emit("Reshape", [self._emit("Where", [empty, one, step]), single], output=scale)
        if zero:
            self._emit("Reshape", [point, single], output=zero)
        return True

    def _reduced(self, op: str, row: str) -> str:
        if self._version < _AXES_ARE_INPUTS:
            return self._emit(op, [row], axes=[1], keepdims=0)
        return self._emit(op, [row, self._constant(np.array([1]))], keepdims=0)

    def _find_product(self, node: Any) -> None:
        """Find the cast and the factors after an integer product, if they are the scales of its sides."""
        maker = self._makers.get(node.input[0])
        if maker is None or maker.op_type not in ("DynamicQuantizeLinear", "QuantizeLinear"):
            return
        _, scale, zero = (*(maker.output if len(maker.output) == 3 else maker.input), "")[:3]
        if zero != (*node.input, "", "")[2] or not scale:
            return
        last = self._only_reader(node.output[0], "Cast")
        if last is None or last.attribute[0].i != onnx.TensorProto.FLOAT:
            return
        factors: list[str] = []
        while len(factors) < 2:
            before, last = last.output[0], self._only_reader(last.output[0], "Mul")
            if last is None:
                return
            factors += self._factors(*(name for name in last.input if name != before))
        others = [name for name in factors if name != scale]
        if len(factors) == 2 and len(others) == 1 and self._fits(node, others[0]):
            self._products[last.output[0]] = node, scale, others[0]

    def _factors(self, *names: str) -> list[str]:
        makers = [self._makers.get(name) for name in names]
        return [
            factor
            for name, maker in zip(names, makers, strict=True)
            for factor in (maker.input if maker is not None and maker.op_type == "Mul" else [name])
        ]

    def _fits(self, node: Any, scale: str) -> bool:
        """Tell whether `scale` is that of constant weights, one or one for each column of a matrix."""
        steps, weights = self._array(scale), self._array(node.input[1])
        if steps is None or weights is None:
            return False
        return steps.size == 1 or (node.op_type == "MatMulInteger" and steps.shape == weights.shape[-1:])

    def _only_reader(self, name: str, op: str) -> Any | None:
        readers = self._readers.get(name, [])
        alone = len(readers) == 1 and name not in self._returned
        return readers[0] if alone and readers[0].op_type == op else None

    def _product(self, node: Any, scale: str, weight_scale: str, output: str) -> bool:
        codes, weights, zero, weight_zero = (*node.input, "", "")[:4]
        x = self._float(codes, scale, zero, axis=0)
        known = self._float(weights, weight_scale, weight_zero, axis=-1)
        assert x is not None
        assert known is not None
        self._emit(_PRODUCTS[node.op_type], [x, known], node, output)
        return True

    # Tensors

    def _float(self, codes: str, scale: str, zero: str = "", *, axis: int) -> str | None:
        """Return what `codes` stand for, their scales along `axis`; None where that cannot be written."""
        if (codes, scale, zero) in self._floats:
            return self._floats[codes, scale, zero]
        steps, inputs = self._array(scale), [codes, self._scalar(scale)]
        if zero:
            inputs.append(self._scalar(zero))
        options: dict[str, Any] = {}
        if steps is not None and steps.size > 1:
            tensor = self._tensors.get(codes)
            if tensor is None:
                return None
            options["axis"] = axis % len(tensor.dims)
            points = self._array(zero) if zero else None
            if points is not None and points.size == 1:
                inputs[2] = self._constant(np.full(steps.shape, points.reshape(()), points.dtype))
        made = self._emit("DequantizeLinear", inputs, **options)
        self._floats[codes, scale, zero] = made
        return made

    def _scalar(self, name: str) -> str:
        """Return the constant `name` without dimensions if it is of one element: then it is for all."""
        value = self._array(name)
        if value is None or value.size != 1 or not value.ndim:
            return name
        return self._constant(value.reshape(()))

    def _array(self, name: str) -> np.ndarray | None:
        tensor = self._tensors.get(name)
        return None if tensor is None else np.asarray(numpy_helper.to_array(tensor))

    def _constant(self, value: np.ndarray) -> str:
        tensor = numpy_helper.from_array(np.asarray(value), self._fresh("constant"))
        self._graph.initializer.append(tensor)
        self._tensors[tensor.name] = tensor
        return str(tensor.name)

    def _emit(
        self, op: str, inputs: Sequence[str], like: Any = None, output: str = "", **attributes: Any
    ) -> str:
        """Write a node, with the attributes of the node `like`, and return the name of what it gives."""
        name = output or self._fresh(op)
        made = helper.make_node(op, list(inputs), [name], **attributes)
        if like is not None:
            made.name = like.name
            made.attribute.extend(each for each in like.attribute if each.name not in _OWN)
        self._nodes.append(made)
        return name

    def _fresh(self, base: str) -> str:
        number = len(self._names)
        while f"{base}_{number}" in self._names:
            number += 1
        self._names.add(f"{base}_{number}")
        return f"{base}_{number}"


_OTHERS: dict[str, Callable[[_Pairs, Any], bool]] = {
    "QLinearConv": _Pairs._convolution,
    "QGemm": _Pairs._gemm,
    "QLinearConcat": _Pairs._concat,
    "QLinearWhere": _Pairs._where,
}


def _alive(nodes: Sequence[Any], returned: set[str]) -> list[Any]:
    """Return the `nodes`, in their order, that something reads; subgraphs may read any."""
    inner = Counter(name for node in nodes for name in _names_inside(node))
    wanted, kept = returned | set(inner), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def _names_inside(node: Any) -> list[str]:
    graphs = [each.g for each in node.attribute if each.type == onnx.AttributeProto.GRAPH]
    return [
        name for graph in graphs for each in graph.node for name in (*each.input, *_names_inside(each))
    ] + [value.name for graph in graphs for value in graph.output]
