"""Convolutions of signals become convolutions of images one row high."""

import numpy as np
import pytest
import torch

from compiler.passes.lift_conv1d import lift_conv1d
from tests.frontend.converters.harness import import_module
from tests.passes.graphs import operators, run


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": 5, "stride": 2, "padding": 2},
        {"kernel_size": 3, "dilation": 2, "padding": 1, "groups": 3, "bias": False},
    ],
)
def test_numbers_are_those_of_the_signal(options):
    torch.manual_seed(0)
    module, x = torch.nn.Conv1d(6, 9, **options).eval(), torch.randn(2, 6, 23)
    before = import_module(module, (x,))
    after = lift_conv1d(before)
    assert "nn.conv1d" in operators(before)
    assert "nn.conv1d" not in operators(after)
    assert "nn.conv2d" in operators(after)
    with torch.inference_mode():
        expected = module.double()(x.double()).numpy()
    # Each output sums at most 6 x 5 products of order 1.
    np.testing.assert_allclose(run(after, x.numpy()), expected, atol=2e-6)


def test_weights_that_are_no_constants_stay():
    x, w = torch.randn(1, 4, 9), torch.randn(4, 4, 3)
    before = import_module(_Free(), (x, w))
    assert "nn.conv1d" in operators(lift_conv1d(before))


class _Free(torch.nn.Module):
    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv1d(x, w)
