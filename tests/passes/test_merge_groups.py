"""Groups narrower than a vector are merged."""

import pytest
from tvm import relax

from compiler.passes.merge_groups import merge_groups
from tests.passes.graphs import assert_same_numbers, const, graph, random


def _groups(mod):
    return [
        int(b.value.attrs.groups) for block in mod["main"].body.blocks for b in block.bindings
        if hasattr(b.value, "attrs") and hasattr(b.value.attrs, "groups")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "after"),
    [
        (32, 32, 8, 2),  # four channels a group, sixteen lanes
        (64, 32, 16, 2),  # two outputs of four inputs
        (16, 32, 16, 2),  # a depthwise convolution with a multiplier
        (32, 32, 2, 2),  # as wide as a vector already
        (16, 16, 16, 16),  # depthwise: it has a kernel of its own
        (15, 15, 3, 3),  # no number of groups fills vectors
        (16, 16, 1, 1),
    ],
)
def test_the_fewest_groups_that_fill_a_vector_become_one(inputs, outputs, groups, after):
    weight = const(outputs, inputs // groups, 3, 3)
    before = graph(
        lambda emit, x: relax.op.nn.conv2d(x, weight, padding=1, strides=2, groups=groups),
        x=(2, inputs, 7, 6),
    )
    merged = merge_groups(16)(before)
    assert _groups(merged) == [after]
    assert_same_numbers(before, merged, random(2, inputs, 7, 6))


def test_weights_that_are_inputs_stay():
    before = graph(lambda emit, x, w: relax.op.nn.conv2d(x, w, groups=4), x=(1, 8, 5, 5), w=(8, 2, 3, 3))
    assert _groups(merge_groups(8)(before)) == [4]
