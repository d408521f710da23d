"""Layers are called by their weights."""

import torch
from torch import nn

from compiler.frontend.layer_names import LayerName, layer_names
from compiler.frontend.load import load
from compiler.frontend.model import Model
from compiler.support.signature import Signature


class Net(nn.Module):
    """A convolution, one layer used twice, weights without a module of their own, and two activations."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.shared = nn.Linear(4, 4)
        self.weight = nn.Parameter(torch.randn(4, 5))

    def forward(self, x):
        y = self.features(x).mean((2, 3))
        y = self.shared(self.shared(y))
        return y @ self.weight, y.T @ y


def test_names_follow_the_graph():
    model = load(Net().eval(), (torch.randn(1, 3, 8, 8),))
    assert layer_names(model) == (
        LayerName("features.0", True),
        LayerName("shared", False),
        LayerName("shared#2", False),
        LayerName("weight", False),
    )


def test_what_is_not_from_pytorch_has_none():
    assert layer_names(Model(None, Signature((), ()), "made up")) == ()
