"""How near outputs are, batch by batch."""

import math

import numpy as np
import pytest

from compiler.compress.fidelity import Fidelity, decibels


def test_measures_of_two_batches():
    fidelity = Fidelity(["y", "count"])
    first = np.array([[1.0, 2.0], [4.0, 3.0]], "float32")
    fidelity.add([first, np.array([3])], [first + np.float32(0.1), np.array([4])])
    second = np.array([[0.0, 1.0]], "float32")
    fidelity.add([second, np.array([3])], [second[:, ::-1], np.array([3])])
    (output,) = fidelity.outputs
    assert output.name == "y"
    assert output.sqnr == pytest.approx(10 * math.log10(31 / (4 * 0.01 + 2)), abs=1e-4)
    assert output.top1 == pytest.approx(2 / 3)
    assert 0.6 < output.cosine < 0.67
    assert fidelity.worst is output or fidelity.worst == output
    assert str(output).startswith("y: SQNR 11.8 dB, cosine 0.66")


def test_what_is_no_row_of_scores_has_no_top1():
    fidelity = Fidelity(["image"])
    image = np.ones((1, 3, 4, 4), "float32")
    fidelity.add([image], [image])
    assert fidelity.outputs[0].top1 is None
    assert fidelity.outputs[0].sqnr == math.inf
    assert fidelity.outputs[0].cosine == pytest.approx(1)


def test_zeros_agree_with_zeros_and_infinities_are_left_out():
    fidelity = Fidelity(["y"])
    zeros = np.zeros((1, 4), "float32")
    fidelity.add([zeros], [zeros])
    assert fidelity.outputs[0].cosine == 1
    wild = np.array([[np.inf, 1, np.nan, 2]], "float32")
    fidelity.add([wild], [wild])
    assert fidelity.outputs[0].sqnr == math.inf


def test_decibels():
    assert decibels(100, 1) == pytest.approx(20)
    assert decibels(0, 0) == math.inf
    assert decibels(0, 1) == -math.inf
