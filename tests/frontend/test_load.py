import numpy as np
import pytest
import torch
import tvm
from torch import nn
from tvm import relax

from compiler.frontend import load
from compiler.support.errors import ModelError, UsageError
from tests.frontend.helpers import Block, Counter, Recurrent, assert_imported


def block_inputs(batch=1, side=8):
    return (torch.randn(batch, 3, side, side),), {"extra": {"bias": torch.ones(1)}}


def shapes(specs):
    return {spec.name: spec.shape for spec in specs}


def test_names_shapes_and_nesting_are_kept():
    args, kwargs = block_inputs()
    model = load(Block(), (args, {**kwargs, "flag": 5}))
    assert shapes(model.signature.inputs) == {"image": (1, 3, 8, 8), "extra_bias": (1,)}
    assert shapes(model.signature.outputs) == {"map": (1, 4, 16, 16), "rest_0": (1,)}
    assert model.signature.output_tree == {"dict": {"map": "*", "rest": {"tuple": ["*", None, {"value": 5}]}}}
    assert any("'flag' is the constant 5" in note for note in model.notes)
    assert_imported(model)


def test_several_dimensions_vary():
    model = load(Block(), block_inputs(), dynamic={"image": {0: "N", 2: ("H", 4, 32)}})
    assert model.signature.inputs[0].shape == ("N", 3, "H", 8)
    assert model.signature.outputs[0].shape == ("N", 4, "2*H", 16)
    assert model.signature.dims == {"N": (1, None), "H": (4, 32)}
    main = model.mod["main"]
    assert dict(main.attrs["tir_var_upper_bound"]) == {"H": 32}
    assert_imported(model)


def test_the_users_example_of_batch_one_does_not_fix_the_batch():
    model = load(nn.Linear(4, 2), torch.randn(1, 4), dynamic={"input": {0: "N"}})
    assert model.examples[0].shape == (1, 4)
    assert_imported(model)


def test_a_multiple_of_a_dimension_varies():
    height = torch.export.Dim("h", min=2, max=30)
    model = load(Block(), block_inputs(batch=2), dynamic={"image": {0: "N", 2: 2 * height}})
    assert model.signature.inputs[0].shape == ("N", 3, "2*h", 8)
    assert model.signature.outputs[0].shape == ("N", 4, "4*h", 16)
    assert_imported(model)


def test_a_multiple_described_as_text():
    model = load(nn.AvgPool2d(2), inputs=["input=1x3x2*H[2,16]x2*W[2,16]"])
    assert model.signature.inputs[0].shape == (1, 3, "2*H", "2*W")
    assert model.signature.outputs[0].shape == (1, 3, "H", "W")
    assert_imported(model)


def test_an_lstm_with_a_varying_batch():
    model = load(Recurrent(), inputs=["x=Nx3x8"])
    assert shapes(model.signature.outputs) == {"output_0": ("N", 3, 4), "output_1": (1, "N", 16)}
    assert model.signature.output_tree == {"tuple": ["*", "*"]}
    assert not model.notes
    assert_imported(model)


def test_a_small_bert_with_a_varying_length():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    bert = transformers.BertModel(config)
    model = load(bert, inputs=["input_ids=NxS[2,32]:int64", "attention_mask=NxS:int64[1,1]"])
    assert [spec.name for spec in model.signature.outputs] == ["last_hidden_state", "pooler_output"]
    assert model.signature.outputs[0].shape == ("N", "S", 16)
    assert model.ranges["input_ids"] == (0, 98)
    assert_imported(model)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vit_b_16"])
def test_torchvision_models_need_no_inputs(name):
    pytest.importorskip("torchvision")
    model = load(f"torchvision.models:{name}")
    assert shapes(model.signature.inputs) == {"x": (1, 3, 224, 224)}
    assert shapes(model.signature.outputs) == {"output_0": (1, 1000)}


def test_resnet18_computes_what_torch_computes():
    pytest.importorskip("torchvision")
    assert_imported(load("torchvision.models:resnet18", inputs=["x=Nx3x32x32"]))


def test_weights_are_shared_not_copied():
    linear = nn.Linear(64, 64)
    model = load(linear, torch.randn(1, 64))
    found = []

    def visit(expr):
        if isinstance(expr, tvm.ir.GenericConst) and expr.value.shape == (64, 64):
            found.append(expr.value)

    relax.analysis.post_order_visit(model.mod["main"], visit)
    assert found
    linear.weight.data.fill_(7)
    assert np.all(found[0].numpy() == 7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_imported_as_float32(dtype):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU()).to(dtype)
    model = load(network, torch.randn(1, 3, 8, 8).to(dtype))
    assert {spec.dtype for spec in (*model.signature.inputs, *model.signature.outputs)} == {"float32"}
    assert any("float32" in note for note in model.notes)
    assert network[0].weight.dtype == dtype
    assert_imported(model)


def test_a_cast_to_half_inside_forward_is_widened():
    class Casting(nn.Module):
        def forward(self, x):
            return (x.half() * 2).float() + torch.ones(4, dtype=torch.float16)

    assert_imported(load(Casting(), torch.randn(4)))


def test_the_module_is_imported_in_evaluation_mode_and_left_as_it_was():
    network = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train()
    network[0].eval()
    model = load(network, torch.randn(2, 4))
    assert network.training
    assert network[1].training
    assert not network[0].training
    assert_imported(model)
    assert network[1].training


def test_state_is_refused_with_the_line_that_changes_it():
    with pytest.raises(
        ModelError, match=r"buffer 'count' is changed in the model \(Counter\) at .*helpers.py:\d+"
    ):
        load(Counter(), torch.randn(2, 4))


def test_state_made_explicit():
    counter = Counter()
    model = load(counter, torch.randn(2, 4), state="explicit")
    assert [spec.name for spec in model.signature.inputs] == ["x", "count"]
    assert [spec.name for spec in model.signature.outputs] == ["output_0", "count_out"]
    assert model.signature.output_tree == {"tuple": ["*", "*"]}
    assert model.examples[1].tolist() == [0.0]
    _, after = model.reference([np.zeros((2, 4), "float32"), np.array([41], "float32")])
    assert after.tolist() == [42.0]
    assert counter.count.item() == 0
    assert_imported(model)


def test_an_input_that_is_changed_in_place():
    class Doubling(nn.Module):
        def forward(self, x):
            x.mul_(2)
            return x + 1

    with pytest.raises(ModelError, match="input 'x' is changed"):
        load(Doubling(), torch.randn(4))
    model = load(Doubling(), torch.randn(4), state="explicit")
    assert [spec.name for spec in model.signature.outputs] == ["output_0", "x_out"]
    assert_imported(model)


def test_an_attribute_used_as_state_is_refused():
    class Running(nn.Module):
        def __init__(self):
            super().__init__()
            self.total = torch.zeros(4)

        def forward(self, x):
            self.total = self.total + x
            return self.total * 2

    with pytest.raises(ModelError, match=r"self\.total.*register_buffer"):
        load(Running(), torch.randn(4))


def test_an_attribute_that_is_only_written_is_noted():
    class Keeping(nn.Module):
        def forward(self, x):
            self.last = x + 1
            return self.last * 2

    model = load(Keeping(), torch.randn(4))
    assert any("self.last" in note for note in model.notes)


def test_inputs_and_constants_may_be_outputs():
    class Passing(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3))

        def forward(self, x, unused):
            y = x + 1
            return x, self.weight, y, y

    model = load(Passing(), (torch.randn(2), torch.randn(5)))
    assert [spec.name for spec in model.signature.inputs] == ["x", "unused"]
    assert len(model.signature.outputs) == 4
    assert_imported(model)


def test_weights_in_odd_layouts():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
            self.register_buffer("view", torch.arange(7, dtype=torch.float32)[1:4].flip(0))
            self.register_buffer("part", torch.arange(12, dtype=torch.float32).reshape(3, 4).t()[1:3])
            self.register_buffer("mask", torch.tensor([True, False, True]))

        def forward(self, x):
            return self.conv(x), torch.where(self.mask, self.view, self.part[0])

    assert_imported(load(Odd(), torch.randn(1, 3, 6, 6)))


def test_an_exported_program_and_its_file(tmp_path):
    program = torch.export.export(
        Block().eval(), *block_inputs(batch=2), dynamic_shapes={
            "image": {0: torch.export.Dim("n", max=9)}, "extra": {"bias": None},
        },
    )  # fmt: skip
    path = tmp_path / "block.pt2"
    torch.export.save(program, path)
    for source in (program, path, str(path)):
        model = load(source)
        assert model.signature.inputs[0].shape == ("image_dim0", 3, 8, 8)
        assert model.signature.dims["image_dim0"][1] == 9
        assert shapes(model.signature.outputs)["rest_0"] == (1,)
    named = load(program, dynamic={"image": {0: "batch"}})
    assert named.signature.inputs[0].shape == ("batch", 3, 8, 8)
    assert_imported(named)


def test_a_multiple_survives_a_file(tmp_path):
    path = tmp_path / "pool.pt2"
    size = {"input": {2: 2 * torch.export.Dim("h", min=2)}}
    torch.export.save(
        torch.export.export(nn.AvgPool2d(2), (torch.randn(1, 3, 8, 8),), dynamic_shapes=size), path
    )
    model = load(path)
    assert model.signature.outputs[0].shape == (1, 3, "input_dim2", 4)
    assert_imported(model)


def test_a_converter_of_the_users():
    class Determinant(nn.Module):
        def forward(self, x):
            return torch.linalg.det(x)

    def convert(node, importer):
        x = importer.env[node.args[0]]
        parts = [importer.block_builder.emit(relax.op.strided_slice(x, [0, 1], [i, j], [i + 1, j + 1]))
                 for i in (0, 1) for j in (0, 1)]  # fmt: skip
        a, b, c, d = (importer.block_builder.emit(relax.op.reshape(part, [])) for part in parts)
        value = importer.block_builder.emit(
            relax.op.subtract(relax.op.multiply(a, d), relax.op.multiply(b, c))
        )
        return [value, None, None]

    with pytest.raises(ModelError, match=r"aten\._linalg_det\.default, 1 time"):
        load(Determinant(), torch.randn(2, 2))
    assert_imported(load(Determinant(), torch.randn(2, 2), converters={"_linalg_det.default": convert}))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.pt2", "cannot find the model file 'missing.pt2'"),
        ("missing", "cannot find the model 'missing'"),
        ("missing.py", r"missing\.py:factory"),
        (nn.Linear, "make an instance"),
        (42, "got int"),
    ],
)
def test_what_is_no_model(source, message):
    with pytest.raises(UsageError, match=message):
        load(source)


def test_an_empty_file_of_another_kind(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"")
    with pytest.raises(UsageError, match="expected a model file"):
        load(path)


def test_missing_example_inputs_tell_how_to_write_them():
    with pytest.raises(UsageError, match=r"--input x=1x3x224x224:float32"):
        load(Recurrent())


def test_examples_and_descriptions_exclude_one_another():
    with pytest.raises(UsageError, match="got both"):
        load(Recurrent(), torch.randn(1, 2, 8), inputs=["x=1x2x8"])


def test_an_unknown_state_option():
    with pytest.raises(UsageError, match="'refuse' or 'explicit'"):
        load(Recurrent(), torch.randn(1, 2, 8), state="keep")


def test_one_tensor_given_twice_is_two_inputs():
    class Subtracting(nn.Module):
        def forward(self, x, y):
            return x - 2 * y

    x = torch.randn(3)
    model = load(Subtracting(), (x, x))
    assert [spec.name for spec in model.signature.inputs] == ["x", "y"]
    assert_imported(model)
