"""From a quantizer to a report."""

import numpy as np

from compiler.compress.fidelity import Fidelity
from compiler.compress.sensitivity import Sensitivity
from compiler.compress.summary import output_reports, summarize
from tests.compress.nets import mixed
from tests.compress.test_quantizer import calibrated


def test_layers_ranges_and_floats_are_told():
    quantizer, arrays, _ = calibrated(mixed)
    reasons = {"matmul_0": "for a drop of at most 1"}
    lost = {"conv2d_0": Sensitivity(40.0, 35.0)}
    report = summarize(quantizer, quantizer.choose(reasons), reasons, lost)
    assert [(layer.name, layer.operator, layer.weights) for layer in report.layers] == [
        ("conv2d_0", "conv2d", "8x3x3x3"),
        ("conv2d_1", "conv2d", "8x1x3x3"),
        ("conv2d_2", "conv2d", "8x8x1x1"),
        ("matmul_0", "matmul", "16x5"),
    ]
    first, *_, last = report.layers
    assert (first.own_sqnr, first.output_sqnr, first.reason) == (40.0, 35.0, "")
    assert 35 < first.weights_sqnr < 60
    assert last.reason == "for a drop of at most 1"
    # What only the last layer reads stays in float with it.
    assert {each.operator for each in report.floats} >= {"mean"}
    x = report.ranges[0]
    assert (x.low, x.high) == (min(a.min() for a in arrays), max(a.max() for a in arrays))
    assert x.least <= x.low * 0.5
    assert sum(x.bins) == sum(array.size for array in arrays)
    assert len(x.bins) == 64
    assert x.shared == 1
    assert report.batches == 4


def test_outputs_without_error_have_no_ratio():
    fidelity = Fidelity(["y"])
    fidelity.add([np.ones((1, 3))], [np.ones((1, 3))])
    (output,) = output_reports(fidelity)
    assert output.sqnr is None
