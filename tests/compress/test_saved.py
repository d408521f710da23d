"""Statistics in a file: written once, read where they are of the same model and the same data."""

import numpy as np
import pytest

from compiler.compress.data import open_data, random_data
from compiler.compress.quantizer import Quantizer
from compiler.compress.ranges import method_named
from compiler.compress.recipe import Recipe
from compiler.compress.saved import fingerprint, saved_or_observed
from compiler.compress.scheme import scheme_named
from compiler.driver import quantize
from compiler.support.errors import InputError, UsageError
from tests.compress.nets import build, conv, mixed, model, residual, samples
from tests.test_driver_compress import SHAPE, net

X = (1, 3, 10, 10)


def quantizer(made=residual, **choices):
    return Quantizer(model(made, x=X), Recipe(**choices))


def observe(path, given, data, run=None):
    """Return statistics of `given` on `data`, and how often the model was run."""
    signature = given.model.signature
    exact, calls = build(given.observing(), signature), []
    outputs = len(signature.outputs)

    def counted(arrays):
        calls.append(arrays)
        return exact(arrays)[outputs:]

    made = random_data(signature, 2) if data is None else open_data(data, signature)
    return saved_or_observed(path, given.model.mod, counted, made, given.observers()), len(calls)


def test_the_model_is_not_run_again(tmp_path):
    path, data = tmp_path / "statistics.npz", samples(3, *X)
    first, ran = observe(path, quantizer(), data)
    assert ran == 3
    # Another scheme, another method.
    other = quantizer(scheme=scheme_named("int8-tensor"), method=method_named("minmax"))
    again, ran = observe(path, other, data)
    assert ran == 0
    assert again.data == first.data
    assert list(again) == list(first)
    for name in first:
        for key, value in first[name].to_arrays().items():
            np.testing.assert_array_equal(again[name].to_arrays()[key], value)
    other.use(again)
    assert other.ranges


def test_without_data_the_comparison_is_on_noise(tmp_path):
    path = tmp_path / "statistics.npz"
    first, _ = observe(path, quantizer(), samples(3, *X))
    again, ran = observe(path, quantizer(), None)
    assert ran == 0
    assert again.data.sha256 == first.data.sha256
    assert not again.data.is_random
    assert "outputs were compared on random inputs" in again.data.notes[-1]


@pytest.mark.parametrize(
    ("given", "data", "message"),
    [
        (quantizer(mixed), samples(3, *X), "of another model"),
        (quantizer(first="float"), samples(3, *X), "a recipe that skips other layers"),
        (quantizer(), samples(3, *X, seed=6), r"of other data \(.*3 batches\)"),
        (quantizer(), samples(4, *X), r"other data .* \(4 batches\)"),
    ],
)
def test_other_statistics_are_refused(tmp_path, given, data, message):
    observe(tmp_path / "statistics.npz", quantizer(), samples(3, *X))
    with pytest.raises(InputError, match=message):
        observe(tmp_path / "statistics.npz", given, data)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.zeros(3))
    with pytest.raises(UsageError, match="expected a file of calibration statistics"):
        observe(path, quantizer(), samples(3, *X))


def test_other_weights_have_another_fingerprint():
    first, same = quantizer(), quantizer()
    observers = first.observers()
    assert fingerprint(first.model.mod, observers) == fingerprint(same.model.mod, observers)

    def trained(seed):
        return model(lambda emit, x: conv(emit, residual(emit, x), 4, 4, seed=seed), x=X).mod

    made = [fingerprint(trained(seed), observers) for seed in (1, 2)]
    assert made[0] != made[1]


def test_from_end_to_end(tmp_path):
    path, data = tmp_path / "statistics.npz", samples(4, *SHAPE)
    first = quantize(*net(), calibrate=data, statistics=path, check=False)
    again = quantize(*net(), statistics=path, check=False)
    (one, two) = (each.quantized.report for each in (first, again))
    assert one["ranges"] == two["ranges"]
    assert one["sha256"] == two["sha256"]
    assert "random inputs" in two["warnings"][-1]
