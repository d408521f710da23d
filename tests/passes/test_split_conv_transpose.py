"""Transposed convolutions become convolutions and interleaved phases."""

import numpy as np
import pytest
import torch

from compiler.passes.split_conv_transpose import phases, split_conv_transpose
from tests.frontend.converters.harness import import_module
from tests.passes.graphs import operators, run


def _module(**options):
    torch.manual_seed(0)
    return torch.nn.ConvTranspose2d(5, 7, **options).eval()


CASES = [
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    {"kernel_size": 4, "stride": 2, "padding": 1},
    {"kernel_size": (3, 5), "stride": (1, 3), "padding": (1, 2)},
    {"kernel_size": 2, "stride": 3, "output_padding": 1},
    {"kernel_size": 3, "stride": 1, "bias": False},
]


@pytest.mark.parametrize("options", CASES)
def test_numbers_are_those_of_the_transposed_convolution(options):
    module, x = _module(**options), torch.randn(2, 5, 6, 9)
    before = import_module(module, (x,))
    after = split_conv_transpose(before)
    assert "nn.conv2d_transpose" not in operators(after)
    assert "nn.conv2d" in operators(after)
    with torch.inference_mode():
        expected = module.double()(x.double()).numpy()
    got = run(after, x.numpy())
    # Each output sums at most 5 x 4 x 4 products of order 1.
    np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.parametrize("options", [{"kernel_size": 3, "dilation": 2}])
def test_what_it_does_not_know_stays(options):
    before = import_module(_module(**options), (torch.randn(1, 5, 6, 6),))
    assert "nn.conv2d_transpose" in operators(split_conv_transpose(before))


def test_phases_take_every_weight_once():
    weight = np.arange(1, 1 + 2 * 3 * 5 * 4, dtype="float32").reshape(2, 3, 5, 4)
    parts = phases(weight, [2, 3])
    assert parts.shape == (3 * 2 * 3, 2, 3, 2)
    assert sorted(parts[parts > 0]) == sorted(weight.ravel())
