"""Graphs made in several ways compute the same; which way is chosen is said by whoever is asked."""

import pytest

from compiler.passes import optimize
from compiler.passes.block_layout import block_layout
from compiler.passes.choices import (
    Convolution,
    ConvolutionSite,
    Residuals,
    Vectors,
    digest_of,
    fuses_residuals,
    laid_out,
    residuals_site,
    vectors_site,
)
from compiler.target import load
from tests.passes.graphs import assert_same_numbers, const, graph, operators, random
from tests.passes.test_block_layout import R, _conv


def always(option):
    """Return what chooses `option` wherever it is one."""

    def choose(site, default, options):
        return option if option in options else default

    return choose


@pytest.mark.parametrize(("m", "kernel"), [(None, "conv2d"), (2, "winograd_conv2d"), (4, "winograd_conv2d")])
@pytest.mark.parametrize("padding", [(1, 1), (0, 2, 1, 0)])
def test_a_convolution_is_made_as_chosen(m, kernel, padding):
    weight = const(8, 12, 3, 3)
    before = graph(lambda emit, x: _conv(x, weight, padding=padding), x=(2, 12, 9, 7))
    asked = []

    def choose(site, default, options):
        asked.append(site)
        assert Convolution(m) in options
        return Convolution(m)

    after = block_layout(4, choose)(before)
    assert operators(after) == ["pack", kernel, "unpack"]
    assert_same_numbers(before, after, random(2, 12, 9, 7))
    # The site stands for the convolution: its module has the same.
    (site,) = asked
    assert isinstance(site, ConvolutionSite)
    (convolution,) = [b.value for b in site.module()["main"].body.blocks[0].bindings]
    assert [int(extent) for extent in convolution.args[0].ty.shape] == [2, 12, 9, 7]
    (original,) = [b.value for b in before["main"].body.blocks[0].bindings][:1]
    assert list(convolution.ty.shape) == list(original.ty.shape)
    again = []
    block_layout(4, lambda site, default, options: again.append(site) or default)(site.module())
    assert again == [site]


@pytest.mark.parametrize(
    "options", [{"strides": (2, 2)}, {"dilation": (2, 2)}, {"groups": 2}], ids=lambda each: next(iter(each))
)
def test_other_convolutions_have_one_way(options):
    weight = const(8, 8 // options.get("groups", 1), 3, 3)
    before = graph(lambda emit, x: _conv(x, weight, **options), x=(1, 8, 9, 9))

    def choose(site, default, options):
        raise AssertionError("nobody is to be asked")

    block_layout(4, choose)(before)


def _residual():
    first, second = const(16, 16, 1, 1), const(16, 16, 1, 1)

    def build(emit, x):
        y = emit(_conv(x, first, padding=(0, 0)))
        return R.nn.relu(emit(R.add(emit(_conv(y, second, padding=(0, 0))), y)))

    return graph(build, x=(1, 16, 5, 5))


def test_residuals_are_fused_or_not():
    before, target = _residual(), load("x86-64-v4")
    fused, _ = optimize(before, target)
    apart, _ = optimize(before, target, choose=always(Residuals(False)))
    assert "fused_conv2d_add_relu" in operators(fused)
    assert "fused_conv2d_add_relu" not in operators(apart)
    assert "fused_add_relu_unpack" in operators(apart), "what follows is still one kernel with the sum"
    inputs = random(1, 16, 5, 5)
    assert_same_numbers(before, fused, inputs)
    assert_same_numbers(before, apart, inputs)


def test_half_vectors_are_for_wide_ones_only():
    mod = _residual()
    assert laid_out(mod, load("x86-64-v4"), always(Vectors(256))).vector.bits == 256
    assert laid_out(mod, load("x86-64-v4")).vector.bits == 512
    for name in ("x86-64-v3", "rpi4", "h100"):
        assert laid_out(mod, load(name), always(Vectors(128))) == load(name)


def test_names_of_networks_tell_them_apart():
    first, second = _residual(), graph(lambda emit, x: R.nn.relu(x), x=(1, 16, 5, 5))
    assert digest_of(first) == digest_of(_residual()) != digest_of(second)
    assert vectors_site(first).name != residuals_site(first).name
    assert fuses_residuals(first)
