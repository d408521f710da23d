"""Symbolic sizes go through: compiled once, run at another size."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

from .harness import check, randomise


class UNet(nn.Module):
    """Two levels: down by pooling, up by a transposed convolution, by scale and by size."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU())
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.last = nn.Conv2d(12, 2, 1)

    def forward(self, x):
        a = self.first(x)
        b = self.second(F.max_pool2d(a, 2))
        c = F.interpolate(b, scale_factor=2.0, mode="bilinear")
        d = F.interpolate(c[:, :4], size=a.shape[2:], mode="nearest")
        return self.last(torch.cat([self.up(b), c[:, 4:], d], 1))


class Tiny(nn.Module):
    """Token and position embeddings, a mask built from sizes, attention, an LSTM-free head."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 8), nn.Embedding(32, 8)
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, ids, mask):
        batch, length = ids.shape
        x = self.norm(self.words(ids) + self.places(torch.arange(length).unsqueeze(0)))
        causal = torch.full((length, length), float("-inf")).triu(1)
        bias = causal + torch.where(mask[:, None, None, :] > 0, 0.0, torch.finfo(torch.float32).min)
        heads = x.view(batch, length, 2, 4).transpose(1, 2)
        x = F.scaled_dot_product_attention(heads, heads, heads, bias.expand(batch, 1, length, length))
        x = x.transpose(1, 2).reshape(batch, length, -1)
        return self.out(x[:, -1]), x.mean(1), (mask.cumsum(1) - 1) * mask


N, L = Dim("n", min=1, max=16), Dim("l", min=2, max=32)
H, W = Dim("h", min=2, max=40), Dim("w", min=2, max=40)
A = {"a": ({0: N},)}


def test_batch():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    check(randomise(net), (torch.randn(2, 3, 8, 8),), ({0: N},), (torch.randn(5, 3, 8, 8),))


def test_image_size():
    shapes = ({0: N, 2: 2 * H, 3: 2 * W},)
    check(randomise(UNet()), (torch.randn(2, 3, 8, 12),), shapes, (torch.randn(1, 3, 10, 6),))


def test_sequence_with_masks():
    def inputs(n, length):
        mask = torch.ones(n, length, dtype=torch.int64)
        mask[0, -1] = 0
        return torch.randint(0, 20, (n, length)), mask

    check(Tiny(), inputs(2, 5), ({0: N, 1: L}, {0: N, 1: L}), inputs(3, 9))


X, Y = torch.randn(3, 6), torch.randn(5, 6)
CASES = {
    "flatten": lambda x: (x.flatten(), x.view(-1, 2, 3), x.reshape(x.shape[0] * 2, 3)),
    "sizes as numbers": lambda x: x * x.shape[0] + x.sum() / x.shape[0],
    "arange": lambda x: (
        torch.arange(x.shape[0]),
        torch.arange(2, 2 + x.shape[0]),
        torch.arange(x.shape[0]) * 0.5,
    ),
    "creation": lambda x: (torch.zeros(x.shape[0], 2), torch.full((x.shape[0],), 7), torch.ones_like(x)),
    "slices": lambda x: (x[1:], x[:-1], x[-2:], x[:, 1:], x[::2]),
    "cat split": lambda x: (torch.cat([x, x]), x.chunk(2, 1), torch.stack([x, x], 1)),
    "roll flip": lambda x: (x.roll(1, 0), x.roll(-2, 0), x.flip(0), x.roll(1, 1)),
    "repeat": lambda x: (x.repeat(2, 1), x.expand(2, -1, -1), x.repeat_interleave(2, 0)),
    "pad": lambda x: (F.pad(x, (1, 0, 2, 1)), F.pad(x, (0, 0, x.shape[0], 0))),
    "reductions": lambda x: (
        x.mean(0),
        x.var(0),
        x.softmax(0),
        x.amax(0),
        x.argmax(0),
        x.std(),
        x.max(0).values,
    ),
    "index": lambda x: (
        x[torch.tensor([0, -1])],
        x.gather(0, torch.zeros(1, 6, dtype=torch.long)),
        x[:, [0, 2]],
    ),
    "sort": lambda x: (*x.sort(0), *x.topk(2, 0), x.cumsum(0)),
    "triangles": lambda x: (torch.tril(torch.ones(x.shape[0], x.shape[0])), (x @ x.T).triu(1)),
    "write": lambda x: x.clone().index_fill(0, torch.tensor([0]), 3.0),
    "unfold": lambda x: x.unfold(0, 2, 1),
    "one hot": lambda x: F.one_hot(x.argmax(1), 6),
    "linear norm": lambda x: F.layer_norm(F.linear(x, torch.ones(4, 6)) + x[:, :4], [4]),
    "select last": lambda x: (x[-1], x.select(0, 1), x.narrow(0, 1, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_first_axis(name):
    check(CASES[name], (X,), {"a": ({0: Dim("rows", min=3, max=64)},)}, (Y,))


IMAGES = torch.randn(1, 2, 6, 8), torch.randn(1, 2, 4, 10)
SIZED = {
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "bilinear": lambda x: F.interpolate(x, scale_factor=(2.0, 3.0), mode="bilinear"),
    "half": lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear"),
    "corners": lambda x: F.interpolate(
        x, size=(x.shape[2] * 2, x.shape[3]), mode="bilinear", align_corners=True
    ),
    "to shape": lambda x: F.interpolate(x[:, :, :2, :2], size=x.shape[-2:], mode="nearest"),
    "pools": lambda x: (
        F.max_pool2d(x, 2),
        F.avg_pool2d(x, 2),
        F.adaptive_avg_pool2d(x, 1),
        F.adaptive_max_pool2d(x, 1),
    ),
    "convolution": lambda x: F.conv2d(x, torch.ones(3, 2, 3, 3), stride=2, padding=1),
    "transposed": lambda x: F.conv_transpose2d(
        x, torch.ones(2, 3, 3, 3), stride=2, padding=1, output_padding=1
    ),
    "norms": lambda x: (F.instance_norm(x), F.group_norm(x, 2), F.normalize(x)),
    "pixel shuffle": lambda x: F.pixel_shuffle(torch.cat([x, x], 1), 2),
    "tokens": lambda x: x.flatten(2).transpose(1, 2),
    "reflect": lambda x: F.pad(x, (1, 1, 1, 1), "reflect"),
}


@pytest.mark.parametrize("name", SIZED)
def test_image_axes(name):
    half = {2: 2 * Dim("hh", min=2, max=20), 3: 2 * Dim("ww", min=2, max=20)}
    check(SIZED[name], IMAGES[:1], {"a": (half,)}, IMAGES[1:])
