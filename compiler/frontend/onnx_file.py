"""Reading ``.onnx`` files through TVM's ONNX importer; ONNX Runtime or onnx itself is the reference."""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relax, tirx

from compiler.frontend.input_text import InputText
from compiler.frontend.model import Arrays, Model
from compiler.frontend.onnx_quantized import with_pairs
from compiler.frontend.pairwise import pairwise
from compiler.frontend.program import verify
from compiler.support.errors import ModelError, UsageError, did_you_mean
from compiler.support.signature import Dim, Signature, TensorSpec

_BUILT_IN = ("", "ai.onnx")

_QOPERATORS = ("QLinear", "QGemm", "QAttention", "QEmbed", "ConvInteger")
"""How operators are called that ONNX Runtime's tools write instead of pairs of quantize and dequantize."""

Ranges = Mapping[str, "tuple[int, int | None]"]


def read_onnx(
    path: Path, inputs: Sequence[InputText] = (), dynamic: Mapping[str, Any] | None = None
) -> Model:
    """Import the ONNX model in the file `path`.

    `inputs` describe inputs whose shapes the file leaves open, or fixes ones it lets vary.

    Raises:
        UsageError: a description that contradicts the file, or a dimension that nobody named.
        ModelError: the file is damaged or has operators that cannot be imported.
    """
    if dynamic:
        raise UsageError(
            "an ONNX file names its own varying dimensions; use --input name=Nx3x224x224 to change them"
        )
    proto = _read(path)
    specs = _input_specs(proto, inputs, path)
    outputs = tuple(_spec(value, {}) for value in proto.graph.output)
    names = sorted({dim for spec in specs for dim in spec.shape if isinstance(dim, str)})
    ranges = {a.name: (a.low, a.high) for each in inputs for a in each.axes if a.name is not None}
    dims = {name: ranges.get(name, (1, None)) for name in names}
    mod = _import(proto, specs, dims, path)
    signature = Signature(
        inputs=specs,
        outputs=_with_shapes(outputs, mod),
        output_tree={"dict": {spec.name: "*" for spec in outputs}},
        dims=dims,
    )
    verify(mod, signature, str(path))
    reference, runner = _reference(path, proto, signature)
    return Model(
        mod=mod,
        signature=signature,
        origin=str(path),
        reference=reference,
        notes=(f"checked against {runner}",),
        ranges={each.name: each.bounds for each in inputs if each.bounds is not None},
    )


def _read(path: Path) -> Any:
    try:
        proto = onnx.load(str(path))
    except Exception as error:
        raise ModelError(f"cannot read '{path}' as an ONNX model: {_line(error)}") from error
    if not proto.graph.output:
        raise ModelError(
            f"expected an ONNX model in '{path}', got a file without outputs; it is damaged or empty"
        )
    return proto


def _input_specs(proto: Any, inputs: Sequence[InputText], path: Path) -> tuple[TensorSpec, ...]:
    weights = {tensor.name for tensor in proto.graph.initializer}
    values = [value for value in proto.graph.input if value.name not in weights]
    known = [value.name for value in values]
    given = {each.name: each for each in inputs}
    for name in given:
        if name not in known:
            raise UsageError(
                f"'{path}' has no input '{name}'{did_you_mean(name, known)} (inputs: {', '.join(known)})"
            )
    return tuple(_spec(value, given) for value in values)


def _spec(value: Any, given: Mapping[str, InputText]) -> TensorSpec:
    """Describe one ONNX value; the user's own description of it comes first."""
    if value.type.WhichOneof("value") != "tensor_type":
        raise ModelError(f"'{value.name}' is no tensor but a {value.type.WhichOneof('value')}")
    tensor = value.type.tensor_type
    dtype = str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name)
    text = given.get(value.name)
    if text is None:
        return TensorSpec(
            value.name, tuple(_dim(d, value.name, i) for i, d in enumerate(tensor.shape.dim)), dtype
        )
    if text.dtype != dtype:
        raise UsageError(f"input '{value.name}' is {dtype} in the file, got {text.dtype}")
    if tensor.HasField("shape") and len(tensor.shape.dim) != len(text.axes):
        raise UsageError(f"input '{value.name}' has {len(tensor.shape.dim)} dimensions, got {len(text.axes)}")
    for axis, dim in zip(text.axes, tensor.shape.dim, strict=False):
        if dim.HasField("dim_value") and (axis.name is not None or axis.factor != dim.dim_value):
            raise UsageError(f"input '{value.name}' has a fixed dimension of {dim.dim_value} in the file")
    if any(axis.name is not None and axis.factor != 1 for axis in text.axes):
        raise UsageError(f"multiples such as 8*N are not possible for the ONNX input '{value.name}'")
    return TensorSpec(value.name, tuple(axis.name or axis.factor for axis in text.axes), dtype)


def _dim(dim: Any, name: str, position: int) -> Dim:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    text = re.sub(r"\W", "_", dim.dim_param)
    return text if text.isidentifier() else f"{re.sub(r'[^0-9A-Za-z_]', '_', name)}_dim{position}"


def _import(proto: Any, specs: Sequence[TensorSpec], dims: Ranges, path: Path) -> tvm.IRModule:
    from tvm.relax.frontend.onnx import from_onnx

    symbols: dict[str, Any] = {}

    def extent(dim: Dim) -> Any:
        return dim if isinstance(dim, int) else symbols.setdefault(dim, tirx.Var(dim, "int64"))

    shapes = {spec.name: [extent(dim) for dim in spec.shape] for spec in specs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            mod = from_onnx(with_pairs(proto), shape_dict=shapes, keep_params_in_input=False)
        except Exception as error:
            raise _explain(proto, path, error) from error
    return pairwise(_return_tuple(mod, dims))


def _return_tuple(mod: tvm.IRModule, dims: Ranges) -> tvm.IRModule:
    """Make ``main`` return a tuple; of its attributes keep the bounds of symbolic sizes only."""
    main = mod["main"]
    body, kind = main.body, main.ret_ty
    if not isinstance(main.ret_ty, relax.TupleType):
        body, kind = relax.SeqExpr(body.blocks, relax.Tuple([body.body])), relax.TupleType([kind])
    upper = {name: high for name, (_, high) in dims.items() if high is not None}
    attrs: dict[str, Any] = {"global_symbol": "main"}
    if dims:
        attrs["tir_var_lower_bound"] = {name: low for name, (low, _) in dims.items()}
    if upper:
        attrs["tir_var_upper_bound"] = upper
    function = relax.Function(
        main.params, body, kind, is_pure=main.is_pure, attrs=tvm.ir.make_node("ir.DictAttrs", **attrs)
    )
    whole = tvm.IRModule({tvm.ir.GlobalVar("main"): function, **_others(mod)})
    return relax.transform.Normalize()(whole)


def _others(mod: tvm.IRModule) -> dict[Any, Any]:
    return {name: function for name, function in mod.functions_items() if name.name_hint != "main"}


def _explain(proto: Any, path: Path, error: Exception) -> ModelError:
    """List the operators TVM names, with how often each occurs."""
    match = re.search(r"operators are not supported for frontend ONNX: (?P<names>[\w, ]+)", str(error))
    if match is None:
        return ModelError(
            f"cannot import '{path}': {type(error).__name__}: {_line(error)}; "
            "if you have the PyTorch model, import that instead"
        )
    names = {name.strip() for name in match["names"].split(",")}
    counts = Counter((node.domain, node.op_type) for node in proto.graph.node if node.op_type in names)
    lines = [f"{len(names)} operator{'s' if len(names) > 1 else ''} of '{path}' cannot be imported:"]
    for (domain, name), count in counts.most_common():
        nodes = [node.name for node in proto.graph.node if node.op_type == name and node.name]
        where = f", first in node '{nodes[0]}'" if nodes else ""
        lines.append(f"  {f'{domain}.' if domain not in _BUILT_IN else ''}{name}, {count} times{where}")
    if any(name.startswith(_QOPERATORS) for name in names):
        lines.append(
            "  these compute on bytes; write the file with quantize and dequantize around float operators: "
            "quantize_static(..., quant_format=QuantFormat.QDQ)"
        )
    else:
        lines.append("  import the PyTorch model instead, or export it to ONNX without these operators")
    return ModelError("\n".join(lines))


def _with_shapes(outputs: Sequence[TensorSpec], mod: tvm.IRModule) -> tuple[TensorSpec, ...]:
    """Take the output shapes of the imported graph where they are known: files often leave them open."""
    specs = []
    for spec, field in zip(outputs, mod["main"].ret_ty.fields, strict=True):
        shape = field.shape.values if field.shape is not None else None
        known = spec.shape if shape is None else tuple(_extent(dim) for dim in shape)
        specs.append(TensorSpec(spec.name, known, spec.dtype))
    return tuple(specs)


def _extent(dim: Any) -> Dim:
    return int(dim) if isinstance(dim, tirx.IntImm) else str(dim)


def _reference(
    path: Path, proto: Any, signature: Signature
) -> tuple[Callable[[Arrays], list[np.ndarray]], str]:
    names = [spec.name for spec in signature.inputs]
    wanted = [spec.name for spec in signature.outputs]
    if importlib.util.find_spec("onnxruntime") is not None:
        return _with_onnxruntime(path, names, wanted), "ONNX Runtime"
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(proto)
    return lambda arrays: list(evaluator.run(wanted, dict(zip(names, arrays, strict=True)))), "onnx.reference"


def _with_onnxruntime(
    path: Path, names: list[str], wanted: list[str]
) -> Callable[[Arrays], list[np.ndarray]]:
    def run(arrays: Arrays) -> list[np.ndarray]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return list(session.run(wanted, dict(zip(names, arrays, strict=True))))

    return run


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
