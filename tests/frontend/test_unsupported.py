import pytest
import torch
from torch import nn

from compiler.frontend import load
from compiler.frontend.converters import CONVERTERS
from compiler.support.errors import ModelError


class Inner(nn.Module):
    def forward(self, x):
        return torch.linalg.svd(x)[1]


class Unsupported(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Inner()
        self.second = Inner()

    def forward(self, x):
        return self.first(x) + self.second(x) + torch.linalg.det(x) + torch.nonzero(x).sum()


def test_everything_unsupported_is_in_one_error():
    with pytest.raises(ModelError) as caught:
        load(Unsupported(), torch.randn(3, 3))
    text = str(caught.value)
    assert "3 operators of Unsupported cannot be imported" in text
    assert "aten._linalg_svd.default, 2 times" in text
    assert "in first (Inner) at" in text
    assert "in second (Inner) at" in text
    assert "test_unsupported.py:" in text
    assert "aten._linalg_det.default, 1 time" in text
    assert "torch.where" in text, "a refused operator says what to do instead"


def test_failures_of_converters_are_listed_together():
    def broken(node, importer):
        raise RuntimeError("cannot do this")

    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Sigmoid())
    assert {"relu.default", "sigmoid.default"} <= CONVERTERS.keys()
    with pytest.raises(ModelError) as caught:
        load(network, torch.randn(1, 4), converters={"relu.default": broken, "sigmoid.default": broken})
    text = str(caught.value)
    assert "2 operators" in text
    assert "aten.relu.default, 1 time: RuntimeError: cannot do this" in text
    assert "in 1 (ReLU)" in text
    assert "in 2 (Sigmoid)" in text
