"""What operators do with bytes."""

import numpy as np
import pytest
from tvm import relax

from compiler.compress.operators import Kind, kind_of, output_axis, why_no_layer
from tests.passes.graphs import const

R = relax.op
X = relax.Var("x", relax.TensorType([1, 4, 6, 6], "float32"))
ROWS = relax.Var("rows", relax.TensorType([3, 6], "float32"))
OTHER = relax.Var("other", relax.TensorType([6, 6], "float32"))


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (R.nn.conv2d(X, const(8, 4, 3, 3)), Kind.LAYER),
        (R.nn.conv2d_transpose(X, const(4, 8, 3, 3)), Kind.LAYER),
        (R.matmul(ROWS, const(6, 5)), Kind.LAYER),
        (R.matmul(ROWS, OTHER), Kind.OTHER),
        (R.nn.relu(X), Kind.ELEMENTWISE),
        (R.add(X, X), Kind.ELEMENTWISE),
        (R.nn.max_pool2d(X, 2), Kind.MOVE),
        (R.reshape(X, (4, 36)), Kind.MOVE),
        (R.nn.avg_pool2d(X, 2), Kind.MEAN),
        (R.mean(X, [2, 3]), Kind.MEAN),
        (R.image.resize2d(X, (12, 12), method="nearest_neighbor"), Kind.MOVE),
        (R.image.resize2d(X, (12, 12), method="linear"), Kind.MEAN),
        (R.nn.pad(X, [0, 0, 0, 0, 1, 1, 1, 1]), Kind.MOVE),
        (R.nn.pad(X, [0, 0, 0, 0, 1, 1, 1, 1], pad_value=1.0), Kind.OTHER),
        (R.nn.softmax(X), Kind.OTHER),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else value.op.name,
)
def test_kinds(call, kind):
    assert kind_of(call) is kind


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (R.matmul(ROWS, OTHER), "two activations"),
        (R.matmul(const(3, 6), OTHER), "its input is constant"),
        (R.matmul(ROWS, const(2, 6, 5)), "3 dimensions"),
        (R.matmul(ROWS, relax.const(np.ones((6, 5)), "float64")), "float64"),
        (R.nn.conv2d(X, const(3, 3, 6, 8), data_layout="NHWC", kernel_layout="HWIO"), "layout"),
    ],
)
def test_what_is_no_layer_is_told_why(call, reason):
    assert reason in why_no_layer(call)
    assert kind_of(call) is Kind.OTHER


def test_outputs_lie_along_an_axis_of_the_weights():
    assert output_axis(R.nn.conv2d(X, const(8, 4, 3, 3))) == 0
    assert output_axis(R.nn.conv2d_transpose(X, const(4, 8, 3, 3))) == 1
    assert output_axis(R.matmul(ROWS, const(6, 5))) == 1
