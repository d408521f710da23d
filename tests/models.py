"""Small models for tests of the whole chain, and factories that go wrong."""

import torch
from torch import nn


class TinyConv(nn.Module):
    """A 3x3 convolution with batch norm, ReLU, pooling and a classifier of 5 classes, for 3x16x16 images."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Linear(16, 5)

    def forward(self, image):
        return self.head(self.features(image).mean((2, 3)))


class Nested(nn.Module):
    """Two named inputs, outputs in a dict with a tuple."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(8, 8)

    def forward(self, left, right):
        both = self.dense(left) + right
        return {"sum": both, "parts": (left * 2, torch.relu(both))}


class Resize(nn.Module):
    """One kernel, for which there is no schedule rule."""

    def forward(self, x):
        return torch.nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")


class UsesNonzero(nn.Module):
    """Has an output whose size depends on the data, which no library of fixed shapes can hold."""

    def forward(self, x):
        return torch.nonzero(x)


def tiny():
    """A model and its example inputs."""
    torch.manual_seed(0)
    return TinyConv().eval(), (torch.randn(1, 3, 16, 16),)


def resize():
    """A model of one kernel that no schedule rule knows, and its example inputs."""
    return Resize().eval(), (torch.randn(1, 5, 13, 24),)


def bare():
    """A model without example inputs."""
    return TinyConv().eval()


def nested():
    """A model with keyword example inputs."""
    torch.manual_seed(0)
    return Nested().eval(), {"left": torch.randn(2, 8), "right": torch.randn(2, 8)}


def unsupported():
    """A model that cannot be imported."""
    return UsesNonzero(), (torch.tensor([1.0, 0.0, 2.0]),)


def raises():
    """A factory with a defect."""
    raise RuntimeError("the weights are on another disk")
