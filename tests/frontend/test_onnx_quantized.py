"""Operators on bytes in ONNX files: each against ONNX Runtime, and the forms that the passes look for."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compiler.frontend import load
from compiler.frontend.onnx_quantized import with_pairs
from tests.frontend.helpers import compiled

ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime knows the operators of its own")

KINDS = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "float32": TensorProto.FLOAT}


def model(nodes, inputs, outputs, weights, version=17):
    """Return a model of `nodes`; inputs and outputs are pairs of a dtype and a shape by name."""

    def values(given):
        return [helper.make_tensor_value_info(n, KINDS[kind], shape) for n, (kind, shape) in given.items()]

    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), tensors)
    opsets = [helper.make_opsetid("", version), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, opset_imports=opsets)
    made.ir_version = 8
    return made


def reference(proto, arrays):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, arrays)


def imported(proto, folder):
    """Return what computes the imported `proto`."""
    onnx.save(proto, folder / "model.onnx")
    run = compiled(load(folder / "model.onnx").mod)
    return lambda arrays: run(list(arrays.values()))


def some_bytes(generator, dtype, shape):
    """Return bytes of which many are the least and the greatest."""
    info = np.iinfo(dtype)
    wide = generator.integers(info.min - 60, info.max + 60, shape)
    return np.clip(wide, info.min, info.max).astype(dtype)


class Case:
    """One operator that reads bytes and gives bytes."""

    def __init__(self, op, reads, gives, weights=(), *, domain="", last=(), **attributes):
        self.op, self.reads, self.gives = op, reads, gives
        self.weights, self.domain, self.last, self.attributes = weights, domain, last, attributes

    def model(self, dtype, generator):
        inputs = {f"x{n}": (dtype, shape) for n, shape in enumerate(self.reads)}
        names, constants = [], {}
        for number in range(len(self.reads)):
            names += [f"x{number}", *self.levels(f"x{number}", dtype, constants, generator)]
        for number, (shape, channels) in enumerate(self.weights):
            constants[f"w{number}"] = some_bytes(generator, "int8", shape)
            constants[f"w{number}_scale"] = generator.uniform(0.01, 0.02, channels).astype("float32")
            constants[f"w{number}_zero"] = np.zeros(channels, "int8")
            names += [f"w{number}", f"w{number}_scale", f"w{number}_zero"]
        own = self.levels("y", dtype, constants, generator, 0.1)
        if self.op == "QLinearConcat":
            names = [*own, *names]
        elif self.op == "QGemm":
            names = [*names, *self.last, *own]
        else:
            names = [*names, *own, *self.last]
        if self.op == "QLinearWhere":
            inputs = {"c": ("uint8", self.reads[0]), **inputs}
            names = ["chosen", *names]
        if self.last:
            constants["bias"] = generator.integers(-3000, 3000, self.gives[1]).astype("int32")
        node = helper.make_node(self.op, names, ["y"], domain=self.domain, **self.attributes)
        nodes = [node]
        if self.op == "QLinearWhere":
            nodes.insert(0, helper.make_node("Cast", ["c"], ["chosen"], to=TensorProto.BOOL))
        return model(nodes, inputs, {"y": (dtype, self.gives)}, constants)

    def levels(self, name, dtype, constants, generator, scale=0.02):
        """Add the scale and zero point of `name`; convolutions also take vectors of one."""
        shape = () if self.op != "QLinearConv" or generator.integers(2) else (1,)
        constants[f"{name}_scale"] = np.full(shape, generator.uniform(scale, 2 * scale), "float32")
        zero = generator.integers(100, 150) - (128 if dtype == "int8" else 0)
        constants[f"{name}_zero"] = np.full(shape, zero, dtype)
        return f"{name}_scale", f"{name}_zero"


OWN = "com.microsoft"
IMAGE = [1, 4, 7, 6]
CASES = {
    "convolution": Case(
        "QLinearConv", [IMAGE], [1, 5, 7, 6], [([5, 4, 3, 3], 5)], last=["bias"], pads=[1, 1, 1, 1]
    ),
    "grouped": Case("QLinearConv", [IMAGE], [1, 4, 3, 2], [([4, 1, 3, 3], 1)], group=4, strides=[2, 2]),
    "matrix": Case("QLinearMatMul", [[2, 3, 9]], [2, 3, 5], [([9, 5], 5)]),
    "two activations": Case("QLinearMatMul", [[2, 3, 9], [2, 9, 5]], [2, 3, 5]),
    "gemm": Case("QGemm", [[3, 9]], [3, 5], [([5, 9], 5)], domain=OWN, last=["bias"], transB=1, alpha=0.5),
    "sum": Case("QLinearAdd", [IMAGE, [4, 1, 1]], IMAGE, domain=OWN),
    "product": Case("QLinearMul", [IMAGE, IMAGE], IMAGE, domain=OWN),
    "sigmoid": Case("QLinearSigmoid", [IMAGE], IMAGE, domain=OWN),
    "leaky": Case("QLinearLeakyRelu", [IMAGE], IMAGE, domain=OWN, alpha=0.3),
    "softmax": Case("QLinearSoftmax", [[3, 9]], [3, 9], domain=OWN, axis=-1, opset=17),
    "mean": Case("QLinearGlobalAveragePool", [[1, 40, 7, 6]], [1, 40, 1, 1], domain=OWN),
    "means": Case(
        "QLinearAveragePool", [IMAGE], [1, 4, 4, 3], domain=OWN, kernel_shape=[3, 3], strides=[2, 2],
        pads=[1, 1, 1, 1],
    ),
    "join": Case("QLinearConcat", [IMAGE, [1, 2, 7, 6]], [1, 6, 7, 6], domain=OWN, axis=1),
    "choice": Case("QLinearWhere", [IMAGE, IMAGE], IMAGE, domain=OWN),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("name", CASES)
def test_an_operator_is_within_a_step_of_onnx_runtime(tmp_path, name, dtype):
    generator = np.random.default_rng()
    proto = CASES[name].model(dtype, generator)
    arrays = {
        each.name: some_bytes(generator, "uint8" if each.name == "c" else dtype,
                              [d.dim_value for d in each.type.tensor_type.shape.dim])
        for each in proto.graph.input
    }  # fmt: skip
    (want,), (got,) = reference(proto, arrays), imported(proto, tmp_path)(arrays)
    assert len(np.unique(want)) > 2
    # ONNX Runtime's softmax is made of a table of whole numbers.
    assert abs(got.astype(int) - want).max() <= (2 if name == "softmax" else 1)


def test_a_product_of_float_scale_gives_floats(tmp_path):
    """QGemm without levels of its own."""
    generator = np.random.default_rng()
    proto = Case("QGemm", [[3, 9]], [3, 5], [([9, 5], 5)], domain=OWN, last=["bias"]).model(
        "uint8", generator
    )
    del proto.graph.node[0].input[7:]
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    arrays = {"x0": some_bytes(generator, "uint8", [3, 9])}
    (want,), (got,) = reference(proto, arrays), imported(proto, tmp_path)(arrays)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def at_run_time(version=17, shape=("N", 9), weights="int8", scales=5, spelled="together"):
    """Return a model as ``quantize_dynamic`` writes it."""
    generator = np.random.default_rng(3)
    product = helper.make_node("MatMulInteger", ["q", "w", "z", "wz"], ["sums"])
    scaled = {
        "together": [
            helper.make_node("Mul", ["s", "ws"], ["both"]),
            helper.make_node("Mul", ["whole", "both"], ["y"]),
        ],
        "one by one": [
            helper.make_node("Mul", ["ws", "whole"], ["half"]),
            helper.make_node("Mul", ["half", "s"], ["y"]),
        ],
        "another way": [
            helper.make_node("Sqrt", ["s"], ["root"]),
            helper.make_node("Mul", ["root", "root"], ["same"]),
            helper.make_node("Mul", ["same", "ws"], ["both"]),
            helper.make_node("Mul", ["whole", "both"], ["y"]),
        ],
    }[spelled]
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        product,
        helper.make_node("Cast", ["sums"], ["whole"], to=TensorProto.FLOAT),
        *scaled,
    ]
    constants = {
        "w": some_bytes(generator, weights, [9, 5]),
        "ws": generator.uniform(0.01, 0.02, scales).astype("float32"),
        "wz": np.full(scales, 0 if weights == "int8" else 128, weights),
    }
    gives = [*shape[:-1], 5]
    return model(nodes, {"x": ("float32", list(shape))}, {"y": ("float32", gives)}, constants, version)


@pytest.mark.parametrize("spelled", ["together", "one by one", "another way"])
@pytest.mark.parametrize(("weights", "scales"), [("int8", 5), ("uint8", ())])
def test_scales_at_run_time(tmp_path, spelled, weights, scales):
    proto = at_run_time(weights=weights, scales=scales, spelled=spelled)
    operators = {node.op_type for node in with_pairs(proto).graph.node}
    assert ("MatMulInteger" in operators) == (spelled == "another way")
    assert "DynamicQuantizeLinear" not in operators
    run = imported(proto, tmp_path)
    for x in (np.random.default_rng().normal(size=(4, 9)), np.zeros((3, 9)), np.full((2, 9), -3.0)):
        arrays = {"x": x.astype("float32")}
        (want,), (got,) = reference(proto, arrays), run(arrays)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_axes_are_an_input_in_later_versions(tmp_path):
    arrays = {"x": np.random.default_rng().normal(size=(2, 3, 9)).astype("float32")}
    for version in (17, 18, 21):
        proto = at_run_time(version, (2, 3, 9))
        (want,), (got,) = reference(proto, arrays), imported(proto, tmp_path)(arrays)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_levels_that_are_outputs(tmp_path):
    """Also those of zeros, whose scale is 1."""
    nodes = [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])]
    outputs = {"q": ("uint8", [2, 7]), "s": ("float32", []), "z": ("uint8", [])}
    proto = model(nodes, {"x": ("float32", [2, 7])}, outputs, {})
    run = imported(proto, tmp_path)
    for x in (np.random.default_rng().normal(size=(2, 7)), np.zeros((2, 7))):
        arrays = {"x": x.astype("float32")}
        wanted, given = reference(proto, arrays), run(arrays)
        assert abs(given[0].astype(int) - wanted[0]).max() <= 1
        np.testing.assert_allclose(given[1], wanted[1], rtol=1e-6)
        assert given[2] == wanted[2]


def test_what_has_no_other_form_is_left():
    """Channels last, a softmax of another version, scales for each row of an activation, no levels."""
    generator = np.random.default_rng()
    plain = {name: CASES[name].model("uint8", generator) for name in ("mean", "softmax", "matrix", "sum")}
    plain["mean"].graph.node[0].attribute.append(helper.make_attribute("channels_last", 1))
    next(each for each in plain["softmax"].graph.node[0].attribute if each.name == "opset").i = 12
    (scale,) = (each for each in plain["matrix"].graph.initializer if each.name == "x0_scale")
    scale.CopyFrom(numpy_helper.from_array(np.ones(3, "float32"), "x0_scale"))
    plain["sum"].graph.node[0].input[7] = ""
    for proto in plain.values():
        assert [n.op_type for n in with_pairs(proto).graph.node] == [n.op_type for n in proto.graph.node]


def test_other_models_are_not_copied():
    proto = model([helper.make_node("Relu", ["x"], ["y"])], *[{n: ("float32", [2])} for n in "xy"], {})
    assert with_pairs(proto) is proto


def test_a_subgraph_keeps_what_it_reads(tmp_path):
    """A branch reads a value that nothing else reads."""
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["inside"], [f"{op}_y"])], op, [],
            [helper.make_tensor_value_info(f"{op}_y", TensorProto.FLOAT, [2, 7])],
        )
        for op in ("Relu", "Neg")
    ]  # fmt: skip
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["inside"]),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    given = {"x": ("float32", [2, 7])}
    proto = model(nodes, given, {"y": ("float32", [2, 7])}, {"zero": np.float32(0)})
    arrays = {"x": np.random.default_rng(1).normal(size=(2, 7)).astype("float32")}
    for each in (arrays, {"x": -arrays["x"]}):
        np.testing.assert_allclose(
            reference(with_pairs(proto), each)[0], reference(proto, each)[0], atol=1e-5
        )
