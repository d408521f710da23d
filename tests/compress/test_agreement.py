"""A library of integers beside the quantized model computed in float."""

import numpy as np
import pytest

from compiler.compress.agreement import compare_with_quantized
from compiler.frontend.model import Quantized
from compiler.support.errors import CheckError

EXACT = np.linspace(-1, 1, 200, dtype="float32").reshape(1, 200)
ROUNDED = EXACT + 0.01 * np.sign(EXACT)
INTEGERS = np.array([3, 4])


def _quantized():
    return Quantized({}, ((EXACT,),), ((EXACT, INTEGERS),), ((ROUNDED, INTEGERS),))


def test_a_code_apart_here_and_there_is_right():
    got = ROUNDED.copy()
    got[0, ::20] += 0.01
    (found,) = compare_with_quantized(_quantized(), lambda arrays: [got, INTEGERS], ["y", "count"])
    assert found.passed
    assert found.name == "y"
    assert 0.002 < found.error < 0.005 < found.tolerance
    assert found.peak == pytest.approx(0.01 / 2.02, rel=1e-3)
    assert "0.0039 of its root mean square off the quantized model; up to 0.026 is allowed" in str(found)


def test_another_computation_is_wrong():
    with pytest.raises(
        CheckError,
        match=r"does not compute what the quantized model computes: y: .* off the .*--no-check",
    ):
        compare_with_quantized(_quantized(), lambda arrays: [ROUNDED * 0.9, INTEGERS], ["y", "count"])


def test_nothing_to_compare_with_is_no_error():
    assert compare_with_quantized(Quantized({}), lambda arrays: [], ["y"]) == ()
