"""Views, moves, indexing and creation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from compiler.support.errors import ModelError

from .harness import as_module, check, import_module

X = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
M = torch.randn(3, 4)
INDEX = torch.tensor([[0, 2], [1, -1]])


def put(x, v):
    y = x.clone()
    y[:, 1] = v
    y[0, :, ::2] = 7
    return y


def put_mask(x):
    y = x.clone()
    y[x > 5] = 0.5
    return y


def put_index(x, i):
    y = x.clone()
    y[i] = -1.0
    y[:, i[:1], 2] += 2.5
    return y


CASES = {
    "view permute": (lambda x: x.permute(0, 2, 3, 1).reshape(2, -1).view(4, 30), (X,)),
    "transpose t": (lambda x: (x.transpose(-1, 0), x[0, 0].t(), x.mT), (X,)),
    "squeeze": (lambda x: (x[:1].squeeze(), x[:1].squeeze(0), x.unsqueeze(-1).squeeze(), x.squeeze(1)), (X,)),
    "expand": (lambda x: x[:1].expand(3, -1, 4, 5), (X,)),
    "slices": (lambda x: (x[:, 1:], x[..., ::2], x[:, :-1, 1:3], x[-1], x[:, 5:], x[:, -2:100]), (X,)),
    "select": (lambda x: (x[:, -1], x.select(2, 1), x.narrow(3, 1, 3)), (X,)),
    "cat stack": (
        lambda x: (torch.cat([x, x * 2], 1), torch.stack([x, x + 1], -1), torch.cat([x, x.int()], 0)),
        (X,),
    ),
    "split chunk unbind": (lambda x: (x.split(2, 3), x.chunk(3, 2), x.unbind(1), x.split([1, 3], 2)), (X,)),
    "tensor split": (lambda x: torch.tensor_split(x, 3, dim=3), (X,)),
    "flip": (lambda x: x.flip(0, 2), (X,)),
    "roll": (lambda x: (x.roll((1, -2), (2, 3)), x.roll(3), x.roll(4, 2)), (X,)),
    "repeat tile": (lambda x: (x.repeat(2, 1, 1, 3), x.tile(2), x[0, 0].repeat(2, 2, 1)), (X,)),
    "repeat interleave": (lambda x: x.repeat_interleave(2, dim=1), (X,)),
    "unfold": (lambda x: (x.unfold(3, 2, 2), x.unfold(2, 3, 1)), (X,)),
    "im2col": (lambda x: F.unfold(x, (2, 3), padding=1, stride=2), (X,)),
    "col2im": (lambda x: F.fold(F.unfold(x, 2, stride=2), (4, 5), 2, stride=2), (X,)),
    "as strided": (lambda x: torch.as_strided(x, (3, 4), (7, 2), 3), (X,)),
    "pads": (lambda x: (F.pad(x, (1, 2)), F.pad(x, (1, -1, 0, 2), value=3.0), F.pad(x, (-1, -2))), (X,)),
    "pad modes": (
        lambda x: (
            F.pad(x, (1, 2, 3, 0), "reflect"),
            F.pad(x, (1, 2, 3, 0), "replicate"),
            F.pad(x, (1, 2, 3, 0), "circular"),
        ),
        (X,),
    ),
    "pad bool": (lambda x: F.pad(x > 3, (1, 1), value=True), (X,)),
    "pixel shuffle": (
        lambda x: (F.pixel_shuffle(x.reshape(1, 12, 2, 5), 2), F.pixel_unshuffle(x[:, :, :, :4], 2)),
        (X,),
    ),
    "channel shuffle": (lambda x: F.channel_shuffle(x.reshape(2, 6, 2, 5), 3), (X,)),
    "diagonal": (
        lambda x: (x.diagonal(0, 2, 3), x.diagonal(1, 2, 3), x.diagonal(-1, 0, 3), torch.diag(x[0, 0])),
        (X,),
    ),
    "tril triu": (lambda x: (x.tril(), x.triu(1), x.tril(-1)), (X,)),
    "movedim": (
        lambda x: (x.movedim(1, -1), x.swapaxes(0, 2), x.flatten(1, 2), x.unflatten(3, (5, 1))),
        (X,),
    ),
    "meshgrid": (lambda x: torch.meshgrid(x[0, 0, 0], x[0, 0, :, 0], indexing="ij"), (X,)),
    "zero size": (lambda x: x[:, :0].reshape(0, 5) + 1, (X,)),
    "index": (lambda x, i: (x[i], x[:, i[0]], x[i, i], x[:, i, :, i]), (X, torch.tensor([[0, 1], [1, 0]]))),
    "negative index": (lambda x, i: (x[i], x[:, i], x[..., i]), (M, INDEX)),
    "index apart": (lambda x, i: x[i, :, i], (X, torch.tensor([0, 1, 1]))),
    "index broadcast": (lambda x, i, j: x[i, j], (M, torch.tensor([[0], [2]]), torch.tensor([1, 3, 0]))),
    "index select": (lambda x, i: x.index_select(1, i), (M, torch.tensor([3, 0, 0]))),
    "gather": (lambda x, i: x.gather(1, i), (M, torch.tensor([[0, 3, 1], [2, 2, 0]]))),
    "take": (
        lambda x, i: (torch.take(x, i), torch.take_along_dim(x, i.abs(), 1)),
        (M, torch.tensor([[0, 3], [2, -1], [1, 1]])),
    ),
    "scatter": (
        lambda x, i: (x.scatter(1, i, x), x.scatter(0, i[:, :2] % 3, 5.0)),
        (M, torch.tensor([[0, 3, 1], [2, 1, 0]])),
    ),
    "scatter add": (lambda x, i: x.scatter_add(0, i, x), (M, torch.tensor([[0, 1, 2, 2], [0, 0, 2, 1]]))),
    "scatter reduce": (
        lambda x, i: (x.scatter_reduce(0, i, x, "amax"), x.scatter_reduce(0, i, x, "prod")),
        (M, torch.tensor([[0, 1, 2, 2], [0, 0, 2, 1]])),
    ),
    "index add": (lambda x, i: x.index_add(0, i, x[:2]), (M, torch.tensor([2, 2]))),
    "index put": (put_index, (X, torch.tensor([1, 0]))),
    "slice assignment": (put, (X, torch.randn(2, 4, 5))),
    "masked assignment": (put_mask, (X,)),
    "embedding": (lambda i: F.embedding(i, M), (torch.tensor([[0, 2], [1, 1]]),)),
    "embedding int32": (lambda i: F.embedding(i, M), (torch.tensor([2, 0], dtype=torch.int32),)),
    "one hot": (lambda i: F.one_hot(i, 5), (torch.tensor([[0, 2], [4, 1]]),)),
    "bucketize": (
        lambda x: (
            torch.bucketize(x, torch.tensor([-0.5, 0.0, 0.5])),
            torch.searchsorted(torch.tensor([-1.0, 0.0, 1.0]), x, right=True),
        ),
        (M,),
    ),
    "aranges": (
        lambda x: (
            torch.arange(5),
            torch.arange(2, 11, 3),
            torch.arange(0, 1, 0.1),
            torch.linspace(-1, 1, 7),
        ),
        (X,),
    ),
    "creation": (
        lambda x: (
            torch.zeros(2, 3),
            torch.ones_like(x),
            torch.full((2,), 3),
            torch.eye(3),
            x.new_full((2,), 0.5),
            torch.zeros_like(x, dtype=torch.int64),
        ),
        (X,),
    ),
    "where on index": (lambda x: torch.where(torch.arange(5) > 2, x, -x), (X,)),
}


@pytest.mark.parametrize("name", CASES)
def test_shapes(name):
    function, args = CASES[name]
    check(function, args)


@pytest.mark.parametrize(
    "function",
    [lambda x: x[x > 1], lambda x: torch.as_strided(x.transpose(0, 1), (3, 2), (1, 2))],
    ids=["mask", "strided view"],
)
def test_refused(function):
    with pytest.raises((ModelError, AssertionError, RuntimeError)):
        import_module(as_module(function), (M,))
