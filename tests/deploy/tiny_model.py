"""Small models for the benchmark's tests, named by ``tests.deploy.tiny_model:...``, and data for them."""

import numpy as np
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


def samples():
    """Pictures for ``convolution``."""
    generator = np.random.default_rng(3)
    for _ in range(4):
        yield generator.standard_normal((1, 3, 8, 8)).astype(np.float32)


class _Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.project, self.mix = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, tokens):
        query, key, value = self.project(tokens).chunk(3, dim=-1)
        weights = torch.softmax(query @ key.transpose(-1, -2) / 4, dim=-1)
        return self.mix(weights @ value)


def attention():
    """What peers quantize as a transformer."""
    return _Attention(), (torch.randn(1, 8, 16),)
