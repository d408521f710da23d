import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from compiler.frontend import load
from compiler.support.errors import ModelError, UsageError
from tests.frontend.helpers import assert_imported


def save(path, nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


@pytest.fixture
def classifier(tmp_path):
    weight = np.random.default_rng(0).standard_normal((8, 3)).astype("float32")
    nodes = [
        helper.make_node("MatMul", ["features", "weight"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["scores"], axis=-1),
        helper.make_node("ArgMax", ["raw"], ["label"], axis=-1, keepdims=0),
    ]
    return save(
        tmp_path / "classifier.onnx", nodes,
        [("features", TensorProto.FLOAT, ["batch", 8])],
        [("scores", TensorProto.FLOAT, None), ("label", TensorProto.INT64, None)],
        [("weight", weight)],
    )  # fmt: skip


def test_names_dtypes_and_varying_dimensions_are_kept(classifier):
    model = load(classifier)
    assert [(s.name, s.shape, s.dtype) for s in model.signature.inputs] == [
        ("features", ("batch", 8), "float32")
    ]
    assert [(s.name, s.shape, s.dtype) for s in model.signature.outputs] == [
        ("scores", ("batch", 3), "float32"),
        ("label", ("batch",), "int64"),
    ]
    assert model.signature.dims == {"batch": (1, None)}
    assert model.signature.output_tree == {"dict": {"scores": "*", "label": "*"}}
    assert_imported(model)


def test_a_description_fixes_or_bounds_a_dimension(classifier):
    assert load(classifier, inputs=["features=4x8"]).signature.outputs[0].shape == (4, 3)
    bounded = load(classifier, inputs=["features=N[1,16]x8"])
    assert bounded.signature.dims == {"N": (1, 16)}
    assert dict(bounded.mod["main"].attrs["tir_var_upper_bound"]) == {"N": 16}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("feature=4x8", "has no input 'feature'; did you mean 'features'"),
        ("features=4x9", "fixed dimension of 8"),
        ("features=4x8x1", "has 2 dimensions, got 3"),
        ("features=4x8:int64", "is float32 in the file, got int64"),
    ],
)
def test_a_description_that_contradicts_the_file(classifier, text, message):
    with pytest.raises(UsageError, match=message):
        load(classifier, inputs=[text])


def test_a_single_output_is_a_tuple_too(tmp_path):
    path = save(
        tmp_path / "one.onnx", [helper.make_node("Relu", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, [2, 3])], [("y", TensorProto.FLOAT, [2, 3])],
    )  # fmt: skip
    model = load(path)
    assert [spec.name for spec in model.signature.outputs] == ["y"]
    assert_imported(model)


def test_a_network_exported_by_torch(tmp_path):
    pytest.importorskip("onnxscript")
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)
    ).eval()
    path = tmp_path / "net.onnx"
    torch.onnx.export(network, (torch.randn(1, 3, 8, 8),), str(path), dynamo=True, verbose=False)
    assert_imported(load(path))


def test_every_unsupported_operator_is_listed(tmp_path):
    nodes = [helper.make_node("Nothing", ["x"], ["a"], domain="far", name="first"),
             helper.make_node("Nothing", ["a"], ["b"], domain="far"),
             helper.make_node("Else", ["b"], ["y"], domain="far")]  # fmt: skip
    path = save(
        tmp_path / "odd.onnx", nodes, [("x", TensorProto.FLOAT, [2])], [("y", TensorProto.FLOAT, [2])]
    )
    with pytest.raises(ModelError) as caught:
        load(path)
    text = str(caught.value)
    assert "2 operators" in text
    assert "far.Nothing, 2 times, first in node 'first'" in text
    assert "far.Else, 1 time" in text


@pytest.mark.parametrize("data", [b"", b"not an onnx file", b"\x08\x09"])
def test_damaged_files(tmp_path, data):
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        load(path)


def test_options_that_do_not_apply(classifier):
    with pytest.raises(UsageError, match="names its own varying dimensions"):
        load(classifier, dynamic={"features": {0: "N"}})
    with pytest.raises(UsageError, match="do not apply to an ONNX file"):
        load(classifier, torch.randn(1, 8))


def test_without_onnxruntime_onnx_itself_is_the_reference(classifier, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "onnxruntime" else find(name)
    )
    model = load(classifier)
    assert any("onnx.reference" in note for note in model.notes)
    assert_imported(model)
