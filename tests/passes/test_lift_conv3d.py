"""Convolutions of volumes become convolutions of images."""

import numpy as np
import pytest
import torch

from compiler.passes.lift_conv3d import lift_conv3d
from tests.frontend.converters.harness import import_module
from tests.passes.graphs import operators, run


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (1, 3, 3), "padding": (0, 1, 1)},
        {"kernel_size": (3, 1, 1), "padding": (1, 0, 0), "stride": (2, 1, 1)},
        {"kernel_size": (3, 2, 1), "stride": (2, 1, 2), "dilation": (2, 1, 1), "padding": (2, 0, 1)},
        {"kernel_size": 3, "groups": 3, "bias": False},
        {"kernel_size": 3, "groups": 6, "padding": 1},
    ],
)
def test_numbers_are_those_of_the_volume(options):
    torch.manual_seed(0)
    module, x = torch.nn.Conv3d(6, 12, **options).eval(), torch.randn(2, 6, 7, 9, 8)
    before = import_module(module, (x,))
    after = lift_conv3d(before)
    assert "nn.conv3d" in operators(before)
    assert "nn.conv3d" not in operators(after)
    assert "nn.conv2d" in operators(after)
    with torch.inference_mode():
        expected = module.double()(x.double()).numpy()
    # Each output sums at most 6 x 27 products of order 1.
    np.testing.assert_allclose(run(after, x.numpy()), expected, atol=3e-6)
