"""Attention that was quantized elsewhere, its products too: integers, and the outputs of those tools."""

import numpy as np
import pytest
import torch
from torch import nn

import compiler
from tests.test_import_quantized import (
    compile_and_compare,
    for_x86,
    in_integers,
    onnx_file,
    qdq,
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


@pytest.mark.parametrize("kinds", [("uint8", "int8"), ("int8", "int8"), ("uint8", "uint8")])
@pytest.mark.filterwarnings("ignore")
def test_onnx(tmp_path, kinds):
    path, reference = onnx_file(tmp_path, Heads, ROWS, qdq(ROWS, *kinds))
    x = torch.randn(*ROWS).numpy()
    compiled = compiler.compile(path, threads=1)
    assert in_integers(compiled) == ["quantized elsewhere: 6 of 6 layers compute in integers"]
    (got,), expected = compiled.session.run_flat([x]), reference(x)
    assert abs(got - expected).max() <= 1.01 * np.diff(np.unique(expected)).min()
