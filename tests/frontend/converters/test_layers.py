"""Matrix products, convolution, pooling, normalization, resizing and reductions."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from compiler.frontend import load
from compiler.support.errors import ModelError

from .harness import as_module, check, import_module, ops, randomise

IMAGE = torch.randn(2, 6, 9, 11)
LINE = torch.randn(2, 6, 13)
VOLUME = torch.randn(2, 4, 5, 6, 7)
NAN = float("nan")

PRODUCTS = {
    "float64": (lambda x, y: x @ y, (torch.randn(3, 4).double(), torch.randn(4, 5).double())),
    "int64": (lambda x, y: x @ y, (torch.randint(-9, 9, (3, 4)) * 10**9, torch.randint(-9, 9, (4, 5)))),
    "int8 wraps": (
        lambda x, y: x @ y,
        (torch.randint(-99, 99, (3, 4)).to(torch.int8), torch.randint(-99, 99, (4, 5)).to(torch.int8)),
    ),
    "int mm": (
        lambda x, y: torch._int_mm(x, y),
        (torch.randint(-99, 99, (20, 16)).to(torch.int8), torch.randint(-99, 99, (16, 8)).to(torch.int8)),
    ),
    "batched": (
        lambda x, y: (x @ y, torch.bmm(x[:, 0], y[0].expand(2, -1, -1))),
        (torch.randn(2, 3, 4, 5), torch.randn(3, 5, 2)),
    ),
    "vectors": (
        lambda x, y: (x @ y[0], y[0] @ y[1], x.mv(y[0]), torch.outer(y[0], y[1]), torch.dot(y[0], y[1])),
        (torch.randn(4, 5), torch.randn(2, 5)),
    ),
    "addmm": (lambda x, y: torch.addmm(x, y, y, beta=0.5, alpha=2), (torch.randn(4), torch.randn(4, 4))),
    "baddbmm": (
        lambda x, y: torch.baddbmm(x, y, y, beta=0, alpha=0.3),
        (torch.full((2, 3, 3), NAN), torch.randn(2, 3, 3)),
    ),
    "einsum": (
        lambda x, y: (
            torch.einsum("bij,bjk->bik", x, y),
            torch.einsum("bij->bji", x),
            # Of one sign: a sum of products that cancels has no digits to compare.
            torch.einsum("bij,bjk->", x.abs(), y.abs()),
        ),
        (torch.randn(2, 3, 4), torch.randn(2, 4, 5)),
    ),
    "cdist": (
        lambda x, y: (torch.cdist(x, y), torch.cdist(x, y, p=1)),
        (torch.randn(2, 3, 4), torch.randn(2, 5, 4)),
    ),
    "bilinear": (nn.Bilinear(4, 5, 3), (torch.randn(2, 4), torch.randn(2, 5))),
    "linear": (nn.Linear(5, 3), (torch.randn(2, 7, 5),)),
    "linear of vector": (nn.Linear(5, 3, bias=False), (torch.randn(5),)),
    "linear double": (nn.Linear(5, 3).double(), (torch.randn(2, 5).double(),)),
    "tensordot": (lambda x, y: torch.tensordot(x, y, 2), (torch.randn(2, 3, 4), torch.randn(3, 4, 5))),
    "cosine": (lambda x: F.cosine_similarity(x, x.flip(0)), (torch.randn(3, 5),)),
    "normalize": (
        lambda x: (
            F.normalize(x),
            x.norm(dim=1),
            x.norm(p=1),
            x.norm(p=3, dim=0),
            torch.linalg.vector_norm(x, float("inf")),
        ),
        (torch.randn(3, 5),),
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_product(name):
    model, args = PRODUCTS[name]
    check(model, args)


LAYERS = {
    "conv1d": (nn.Conv1d(6, 4, 3, 2, 1, 2), LINE),
    "conv2d groups": (nn.Conv2d(6, 4, 3, (2, 1), (1, 2), groups=2), IMAGE),
    "conv2d same": (nn.Conv2d(6, 4, 4, padding="same"), IMAGE),
    "conv2d reflect": (nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"), IMAGE),
    "conv2d depthwise": (nn.Conv2d(6, 12, 3, groups=6, bias=False), IMAGE),
    "conv2d unbatched": (nn.Conv2d(6, 4, 3), IMAGE[0]),
    "conv3d": (nn.Conv3d(4, 3, (1, 3, 2), 1, (0, 1, 1)), VOLUME),
    "conv2d double": (nn.Conv2d(6, 4, 3).double(), IMAGE.double()),
    "transposed 1d": (nn.ConvTranspose1d(6, 4, 3, 2, 1, 1), LINE),
    "transposed 1d groups": (nn.ConvTranspose1d(6, 4, 4, 3, groups=2, dilation=2), LINE),
    "transposed 2d": (nn.ConvTranspose2d(6, 4, 3, 2, 1, 1), IMAGE),
    "transposed 2d groups": (nn.ConvTranspose2d(6, 4, (2, 3), (1, 2), groups=2), IMAGE),
    "transposed 2d dilated": (nn.ConvTranspose2d(6, 4, 3, 2, dilation=2), IMAGE),
    "transposed 3d": (nn.ConvTranspose3d(4, 3, 3, 2, 1, 1), VOLUME),
    "transposed 3d groups": (nn.ConvTranspose3d(4, 4, 2, groups=2), VOLUME),
    "batch norm": (nn.BatchNorm2d(6), IMAGE),
    "batch norm 1d": (nn.BatchNorm1d(6, affine=False), LINE),
    "batch norm 3d": (nn.BatchNorm3d(4, eps=0.1), VOLUME),
    "batch norm without statistics": (nn.BatchNorm2d(6, track_running_stats=False), IMAGE),
    "layer norm": (nn.LayerNorm([9, 11]), IMAGE),
    "layer norm plain": (nn.LayerNorm(11, elementwise_affine=False), IMAGE),
    "layer norm no bias": (nn.LayerNorm(11, bias=False), IMAGE),
    "group norm": (nn.GroupNorm(3, 6), IMAGE),
    "group norm plain": (nn.GroupNorm(2, 6, affine=False), LINE),
    "instance norm": (nn.InstanceNorm2d(6), IMAGE),
    "instance norm affine": (nn.InstanceNorm1d(6, affine=True), LINE),
    "instance norm tracked": (nn.InstanceNorm2d(6, affine=True, track_running_stats=True), IMAGE),
    "rms norm": (nn.RMSNorm(11, eps=1e-6), IMAGE),
    "rms norm plain": (nn.RMSNorm([9, 11], elementwise_affine=False), IMAGE),
    "local response norm": (nn.LocalResponseNorm(3), IMAGE),
    "max pool 1d": (nn.MaxPool1d(3, 2, 1), LINE),
    "max pool": (nn.MaxPool2d(3, 2, 1), IMAGE),
    "max pool ceil": (nn.MaxPool2d((3, 2), 2, (1, 0), ceil_mode=True), IMAGE),
    "max pool dilated": (nn.MaxPool2d(2, 2, 1, 2), IMAGE),
    "max pool ceil past padding": (nn.MaxPool2d(2, 3, 1, ceil_mode=True), IMAGE),
    "max pool indices": (nn.MaxPool2d(3, 2, 1, return_indices=True), IMAGE),
    "max pool indices ceil": (nn.MaxPool2d(3, 2, 1, 2, return_indices=True, ceil_mode=True), IMAGE),
    "max pool 1d indices": (nn.MaxPool1d(3, 2, return_indices=True), LINE),
    "max pool 3d": (nn.MaxPool3d(2, ceil_mode=True), VOLUME),
    "max pool 3d indices": (nn.MaxPool3d(2, 1, 1, return_indices=True), VOLUME),
    "max pool unbatched": (nn.MaxPool2d(2), IMAGE[0]),
    "fractional indices": (
        lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2, output_size=(9, 11)),
        IMAGE,
    ),
    "avg pool 1d": (nn.AvgPool1d(3, 2, 1), LINE),
    "avg pool": (nn.AvgPool2d(3, 2, 1), IMAGE),
    "avg pool excludes padding": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), IMAGE),
    "avg pool divisor": (nn.AvgPool2d(3, 2, 1, divisor_override=5), IMAGE),
    "avg pool ceil": (nn.AvgPool2d(2, 2, 1, ceil_mode=True), IMAGE[:, :, :, :10]),
    "avg pool ceil excludes padding": (
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        IMAGE[:, :, :, :10],
    ),
    "avg pool 3d": (nn.AvgPool3d(2, 2, 1), VOLUME),
    "adaptive avg": (nn.AdaptiveAvgPool2d((4, 3)), IMAGE),
    "adaptive avg to one": (nn.AdaptiveAvgPool2d(1), IMAGE),
    "adaptive avg one axis": (nn.AdaptiveAvgPool2d((None, 1)), IMAGE),
    "adaptive avg 1d": (nn.AdaptiveAvgPool1d(5), LINE),
    "adaptive avg 3d": (nn.AdaptiveAvgPool3d((2, 3, 1)), VOLUME),
    "adaptive max": (nn.AdaptiveMaxPool2d((4, 3), return_indices=True), IMAGE),
    "adaptive max 1d": (nn.AdaptiveMaxPool1d(5), LINE),
    "lp pool": (nn.LPPool2d(2, 3), IMAGE.abs()),
    "nearest": (nn.Upsample(scale_factor=2), IMAGE),
    "nearest to size": (nn.Upsample(size=(5, 17)), IMAGE),
    "nearest fraction": (nn.Upsample(scale_factor=1.7), IMAGE),
    "nearest 1d": (nn.Upsample(scale_factor=3), LINE),
    "nearest 3d": (nn.Upsample(scale_factor=2), VOLUME),
    "nearest exact": (nn.Upsample(size=(7, 20), mode="nearest-exact"), IMAGE),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE),
    "bilinear corners": (nn.Upsample(size=(20, 5), mode="bilinear", align_corners=True), IMAGE),
    "bilinear down": (nn.Upsample(size=(4, 5), mode="bilinear"), IMAGE),
    "bilinear fraction": (nn.Upsample(scale_factor=1.3, mode="bilinear"), IMAGE),
    "bilinear recomputed": (
        lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear", recompute_scale_factor=True),
        IMAGE,
    ),
    "bilinear antialias": (lambda x: F.interpolate(x, (4, 5), mode="bilinear", antialias=True), IMAGE),
    "bicubic": (nn.Upsample(scale_factor=2, mode="bicubic"), IMAGE),
    "bicubic corners": (nn.Upsample(size=(4, 25), mode="bicubic", align_corners=True), IMAGE),
    "bicubic antialias": (lambda x: F.interpolate(x, (4, 5), mode="bicubic", antialias=True), IMAGE),
    "linear 1d": (nn.Upsample(scale_factor=2, mode="linear"), LINE),
    "trilinear": (nn.Upsample(scale_factor=2, mode="trilinear"), VOLUME),
    "trilinear corners": (nn.Upsample(size=(3, 9, 4), mode="trilinear", align_corners=True), VOLUME),
    "lstm": (nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True), torch.randn(2, 4, 6)),
    "gru": (nn.GRU(6, 5, 2), torch.randn(4, 2, 6)),
    "gru bidirectional": (nn.GRU(6, 5, bidirectional=True, batch_first=True), torch.randn(2, 4, 6)),
    "rnn": (nn.RNN(6, 5, nonlinearity="relu"), torch.randn(4, 2, 6)),
    "embedding bag": (nn.EmbeddingBag(10, 4, mode="mean"), torch.tensor([[1, 2, 9], [4, 4, 0]])),
    "embedding bag max": (nn.EmbeddingBag(10, 4, mode="max"), torch.tensor([[1, 2, 9], [4, 4, 0]])),
    "padding embedding": (nn.Embedding(10, 4, padding_idx=0), torch.tensor([[1, 0]])),
    "transformer layer": (nn.TransformerEncoderLayer(6, 2, 12, batch_first=True), torch.randn(2, 5, 6)),
    "multi-head attention": (
        lambda x: F.multi_head_attention_forward(
            x,
            x,
            x,
            6,
            2,
            torch.linspace(-1, 1, 108).reshape(18, 6),
            None,
            None,
            None,
            False,
            0.0,
            torch.eye(6),
            None,
            training=False,
        )[0],
        torch.randn(5, 2, 6),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    model, x = LAYERS[name]
    if isinstance(model, nn.Module):
        randomise(model)
    check(model, (x,))


REDUCTIONS = {
    "sums": lambda x: (
        x.sum(),
        x.sum(1),
        x.sum((0, 2), keepdim=True),
        x.mean(),
        x.mean(-1),
        x.prod(1),
        x.prod(),
    ),
    "extrema": lambda x: (x.amax(1), x.amin((0, 2)), x.max(), x.min(), x.aminmax(dim=0)),
    "extrema with indices": lambda x: (*x.max(1), *x.min(2, keepdim=True)),
    "arg": lambda x: (x.argmax(), x.argmin(1), x.argmax(2, keepdim=True), x.argmax(keepdim=True)),
    "spread": lambda x: (
        x.var(),
        x.std(1),
        x.var((0, 2), unbiased=False, keepdim=True),
        *torch.var_mean(x, 1),
        *torch.std_mean(x),
    ),
    "any all": lambda x: (
        (x > 1).any(),
        (x > 1).any(1),
        (x > -2).all(2),
        x.any(0),
        x.all(),
        (x > 1).all((0, 1)),
    ),
    "scans": lambda x: (x.cumsum(1), x.cumprod(2), x.logcumsumexp(0), x.diff(dim=1)),
    "running extrema": lambda x: (*x.round().cummax(1), *x.round().cummin(2)),
    "logsumexp": lambda x: (x.logsumexp(1), x.logsumexp((0, 1))),
    "sort": lambda x: (*x.sort(1), *x.sort(2, descending=True), x.argsort(0)),
    "topk": lambda x: (*x.topk(2, 1), *x.topk(3, -1, largest=False)),
    "cross": lambda x: (x.count_nonzero(1), (x > 0).sum(), torch.trace(x[0])),
    "nansum": lambda x: x.nansum(1),
    "quantile-free median": lambda x: x.sort(1).values[:, 2],
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reduction(name):
    check(REDUCTIONS[name], (torch.randn(2, 5, 4),))


def test_extrema_keep_nan_and_first_index():
    x = torch.tensor([[1.0, NAN, 5.0, NAN], [2.0, 7.0, 7.0, 1.0], [float("-inf")] * 4])
    check(lambda x: (x.amax(1), x.amin(1), *x.max(1), *x.min(1), x.max(), x.argmax(1), x.argmin(0)), (x,))


def test_integer_reductions():
    x = torch.randint(-5, 5, (3, 4), dtype=torch.int32)
    check(
        lambda x: (x.sum(), x.sum(1), x.prod(0), x.amax(1), *x.max(0), x.argmin(), x.cumsum(0), x.cumprod(1)),
        (x,),
    )


def test_bool_reductions():
    x = torch.tensor([[True, False, True], [False, False, True]])
    check(lambda x: (x.cumsum(1), x.sum(), x.any(), x.all(1), x.max(), x.amin(0), x.long().argmax(1)), (x,))


def test_training_statistics_are_not_mistaken():
    """Batch norm that uses the batch's statistics in evaluation equals PyTorch."""
    layer = randomise(nn.BatchNorm1d(6, track_running_stats=False))
    check(layer, (LINE * 3 + 1,))


GRID_MODES = [
    (m, p, a)
    for m in ("bilinear", "nearest", "bicubic")
    for p in ("zeros", "border", "reflection")
    for a in (True, False)
]


@pytest.mark.parametrize(("mode", "padding", "corners"), GRID_MODES)
def test_grid_sample(mode, padding, corners):
    grid = torch.rand(2, 4, 5, 2) * 2.6 - 1.3
    check(lambda x, g: F.grid_sample(x, g, mode, padding, corners), (IMAGE, grid))


@pytest.mark.parametrize("corners", [True, False])
def test_affine_grid(corners):
    check(lambda t: F.affine_grid(t, [2, 3, 4, 5], corners), (torch.randn(2, 2, 3),))


def test_ops_that_stay_whole():
    net = nn.Sequential(
        nn.Conv2d(6, 8, 3),
        nn.BatchNorm2d(8),
        nn.SiLU(),
        nn.MaxPool2d(2),
        nn.Flatten(2),
        nn.Linear(20, 4),
        nn.LayerNorm(4),
        nn.RMSNorm(4),
        nn.GELU(),
    )
    found = ops(import_module(as_module(net), (torch.randn(1, 6, 10, 12),)))
    whole = [name for name in found if name.startswith("nn.") or name in ("matmul", "permute_dims")]
    assert whole == [
        "nn.conv2d",
        "nn.batch_norm",
        "nn.silu",
        "nn.max_pool2d",
        "permute_dims",
        "matmul",
        "nn.layer_norm",
        "nn.rms_norm",
        "nn.gelu",
    ]


def test_dropout_in_training_is_refused():
    with pytest.raises(ModelError):
        load(torch.export.export(nn.Dropout(0.5).train(), (LINE,)))


@pytest.mark.parametrize(("groups", "offset_groups", "masked"), [(1, 1, False), (2, 3, True), (1, 2, True)])
def test_deformable_convolution(groups, offset_groups, masked):
    weight, bias = torch.randn(4, 6 // groups, 3, 2), torch.randn(4)
    offset = torch.randn(2, offset_groups * 12, 5, 5) * 2
    mask = torch.rand(2, offset_groups * 6, 5, 5)

    def convolve(x, offset, *mask):
        return torchvision.ops.deform_conv2d(
            x, offset, weight, bias, stride=2, padding=1, dilation=(1, 3), mask=mask[0] if mask else None
        )

    check(convolve, (IMAGE, offset, mask) if masked else (IMAGE, offset))
