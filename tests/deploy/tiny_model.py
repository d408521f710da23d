"""Small models for the benchmark's tests, named by ``tests.deploy.tiny_model:...``."""

import torch
from torch import nn


def convolution():
    """A picture in, four scores out."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 4))
    return net, (torch.randn(1, 3, 8, 8),)


def batch_of_two():
    """ncnn has no batch dimension and must say so."""
    return nn.Linear(4, 3), (torch.randn(2, 4),)


class _Named(nn.Module):
    def forward(self, left, right):
        return {"sum": left + right, "parts": (left - right, right * 2)}


def nested():
    """Two inputs by keyword, nested outputs."""
    return _Named(), {"left": torch.randn(1, 4), "right": torch.randn(1, 4)}
