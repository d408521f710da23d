"""One number for a model."""

import numpy as np
import pytest

from compiler.compress.score import agreement, evaluated
from compiler.support.errors import InputError, UsageError
from compiler.support.signature import Signature, TensorSpec


def _run(arrays):
    return [arrays[0] * 2]


def test_the_users_function_gets_what_runs_the_model():
    def score(run):
        outputs = run([np.ones(2)])
        assert isinstance(outputs, list)
        return outputs[0].sum()

    assert evaluated(score, _run, "score") == 4


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda run: 1 / 0, "the evaluation mine failed: ZeroDivisionError"),
        (lambda run: "good", "expected a score, a number, from the evaluation mine, got str"),
        (lambda run: None, "got NoneType"),
        (lambda run: float("nan"), "expected a finite score from the evaluation mine, got nan"),
        (lambda run: run(), "TypeError"),
    ],
)
def test_functions_that_fail_are_the_users_error(score, message):
    with pytest.raises(InputError, match=message):
        evaluated(score, _run, "mine")


def test_errors_of_ours_stay_what_they_are():
    def score(run):
        raise UsageError("as it is")

    with pytest.raises(UsageError, match="as it is"):
        evaluated(score, _run, "mine")


def _data(arrays):
    from compiler.compress.data import open_data

    signature = Signature((TensorSpec("x", (1, 3), "float32"),), (TensorSpec("y", (1, 3), "float32"),))
    return open_data(arrays, signature)


def test_agreement_counts_equal_classes_or_angles():
    rows = [np.array([[1, 2, 3]], "float32"), np.array([[3, 2, 1]], "float32")]
    first = lambda arrays: [np.array([[0, 0, 1]], "float32")]  # noqa: E731
    assert agreement(_run, _run, _data(rows), ["y"]) == 100
    assert agreement(_run, first, _data(rows), ["y"]) == 50
    flat = lambda arrays: [arrays[0].reshape(-1)]  # noqa: E731
    assert agreement(flat, flat, _data(rows), ["y"]) == pytest.approx(100)
    whole = lambda arrays: [np.array([1])]  # noqa: E731
    with pytest.raises(UsageError, match="--evaluate"):
        agreement(whole, whole, _data(rows), ["y"])
