"""Products of activations, and activations by table, of models quantized elsewhere: what those tools give."""

import numpy as np
import pytest
import torch
from torch import nn

import compiler
from compiler.frontend import load as import_model
from compiler.passes import optimize
from compiler.target import load
from tests.test_import_quantized import (
    IMAGE,
    Samples,
    compile_and_compare,
    for_x86,
    in_integers,
    network,
    reference,
    static,
    x86,
)

ROWS = (2, 21, 32)


class Heads(nn.Module):
    """Attention of four heads, written as two products of activations."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(32, 32) for _ in range(4))

    def forward(self, x):
        query, key, value = (self.split(layer(x)) for layer in (self.query, self.key, self.value))
        scores = torch.matmul(query, key.transpose(-1, -2)) / 8**0.5
        heads = torch.matmul(torch.softmax(scores, -1), value)
        return self.out(heads.transpose(1, 2).reshape(ROWS))

    @staticmethod
    def split(rows):
        return rows.view(*ROWS[:2], 4, 8).transpose(1, 2)


def with_products():
    """Return the x86 quantizer that also takes products of activations."""
    config = x86.get_default_x86_inductor_quantization_config()
    return for_x86().set_function_type_qconfig(torch.matmul, config)


def test_pt2e():
    compiled, worst = compile_and_compare(static(Heads, ROWS, with_products()), torch.randn(*ROWS))
    assert in_integers(compiled) == ["quantized elsewhere: 6 of 6 layers compute in integers"]
    # Measured: 1e-4 where no value lies between two bytes, else less than a quantum.
    assert worst <= 1


def onnx_file(folder, kind, shape, activations="uint8", weights="int8"):
    """Return the path of a network as ONNX whose activations and weights are bytes."""
    pytest.importorskip("onnxscript")
    quantization = pytest.importorskip("onnxruntime.quantization")
    source, target = folder / "float.onnx", folder / "quantized.onnx"
    given = (torch.randn(*shape),)
    torch.onnx.export(network(kind), given, str(source), dynamo=True, verbose=False, input_names=["x"])
    kinds = {"uint8": quantization.QuantType.QUInt8, "int8": quantization.QuantType.QInt8}
    quantization.quantize_static(
        str(source), str(target), Samples(shape), quant_format=quantization.QuantFormat.QDQ,
        activation_type=kinds[activations], weight_type=kinds[weights],
    )  # fmt: skip
    return target


@pytest.mark.parametrize("kinds", [("uint8", "int8"), ("int8", "int8"), ("uint8", "uint8")])
@pytest.mark.filterwarnings("ignore")
def test_onnx(tmp_path, kinds):
    path = onnx_file(tmp_path, Heads, ROWS, *kinds)
    x = torch.randn(*ROWS).numpy()
    compiled = compiler.compile(path, threads=1)
    assert in_integers(compiled) == ["quantized elsewhere: 6 of 6 layers compute in integers"]
    (got,), expected = compiled.session.run_flat([x]), reference(path)(x)
    assert abs(got - expected).max() <= 1.01 * np.diff(np.unique(expected)).min()


class Gated(nn.Module):
    """A layer whose bytes another layer, a sigmoid and a hard swish read."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        return self.second(x) * torch.sigmoid(x) + nn.functional.hardswish(x)


@pytest.mark.filterwarnings("ignore")
def test_activations_by_table(tmp_path):
    path = onnx_file(tmp_path, Gated, IMAGE)
    x = torch.randn(*IMAGE).numpy()
    target = load("host")
    mod, _ = optimize(import_model(path).mod, target)
    tables = sum(name.name_hint.startswith("lookup") for name in mod.get_global_vars())
    assert tables >= 1
    compiled = compiler.compile(path, threads=1)
    assert in_integers(compiled) == ["quantized elsewhere: 2 of 2 layers compute in integers"]
    (got,), expected = compiled.session.run_flat([x]), reference(path)(x)
    assert abs(got - expected).max() <= 1.01 * np.diff(np.unique(expected)).min()
