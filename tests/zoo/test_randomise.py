"""A randomised network must notice when an importer drops something."""

import copy

import pytest
import torch
from torch import nn

from tests.zoo.models import image
from tests.zoo.networks import UNet
from tests.zoo.randomise import randomise


def _changed(module: nn.Module, other: nn.Module, inputs: tuple) -> float:
    with torch.no_grad():
        expected, got = module(*inputs), other(*inputs)
    return float((expected - got).abs().max() / (expected.max() - expected.min()))


@pytest.mark.parametrize("lost", ["running_mean", "running_var", "weight", "bias"])
def test_losing_any_part_of_any_batch_norm_shows(lost):
    module = randomise(UNet(), image(32))
    norms = [name for name, each in module.named_modules() if isinstance(each, nn.BatchNorm2d)]
    assert norms
    for name in norms:
        damaged = copy.deepcopy(module)
        neutral = 0.0 if lost in ("running_mean", "bias") else 1.0
        getattr(damaged.get_submodule(name), lost).data.fill_(neutral)
        assert _changed(module, damaged, image(32)) > 1e-3, name


def test_the_same_seed_gives_the_same_statistics():
    first, second = (randomise(nn.Sequential(nn.BatchNorm2d(3)), image(8), seed=5) for _ in range(2))
    other = randomise(nn.Sequential(nn.BatchNorm2d(3)), image(8), seed=6)
    assert torch.equal(first[0].running_mean, second[0].running_mean)
    assert not torch.equal(first[0].running_mean, other[0].running_mean)


def test_layer_scales_are_no_longer_tiny():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer_scale = nn.Parameter(1e-6 * torch.ones(3, 1, 1))

        def forward(self, x):
            return x * self.layer_scale

    assert float(randomise(Block(), image(8)).layer_scale.detach().min()) >= 0.5
