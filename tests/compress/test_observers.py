import ml_dtypes
import numpy as np
import pytest

from compiler.compress.observers import Observer
from compiler.support.errors import InputError


def observed(*arrays, channel_axis=None):
    observer = Observer(channel_axis)
    for array in arrays:
        observer.update(np.asarray(array))
    return observer


def pieces(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_extremes_magnitude_and_number_of_updates():
    arrays = pieces(5, 2, 3, 8, 8)
    observer = observed(*arrays)
    assert (observer.low, observer.high) == (arrays.min(), arrays.max())
    assert observer.updates == 5
    assert observer.histogram.total == arrays.size
    np.testing.assert_allclose(observer.mean_magnitude, np.abs(arrays).mean(), atol=observer.histogram.width)


def test_the_average_is_plain_at_first_and_moving_later():
    observer = observed([-1, 1], [-3, 5], [0, 0])
    np.testing.assert_allclose(observer.average, (-4 / 3, 2))
    for _ in range(97):
        observer.update(np.zeros(1))
    before = observer.average
    observer.update(np.array([-100, 100]))
    np.testing.assert_allclose(observer.average, (before[0] * 0.99 - 1, before[1] * 0.99 + 1))


@pytest.mark.parametrize(
    "dtype", ["float16", "float64", "int8", "uint8", "int64", "bool", ml_dtypes.bfloat16]
)
def test_any_number_type(dtype):
    values = (np.arange(12).reshape(3, 4) % 5).astype(dtype)
    observer = observed(values, values.T)
    assert (observer.low, observer.high) == (0, 4 if dtype != "bool" else 1)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_channels(axis):
    arrays = pieces(3, 4, 4, 4, 4)
    channels = observed(*arrays, channel_axis=axis).channels
    apart = np.moveaxis(arrays, 1 + axis if axis >= 0 else axis, 0).reshape(4, -1)
    np.testing.assert_array_equal(channels.low, apart.min(axis=1))
    np.testing.assert_array_equal(channels.high, apart.max(axis=1))
    np.testing.assert_allclose(channels.mean, apart.astype(np.float64).mean(axis=1), rtol=1e-5, atol=1e-7)


def test_a_million_values_do_not_wear_the_mean_out():
    observer = observed(np.full((1, 2, 1000, 1000), 0.1, np.float32), channel_axis=1)
    np.testing.assert_allclose(observer.channels.mean, np.float32(0.1), rtol=1e-6)


@pytest.mark.parametrize("axis", [None, 1])
def test_arrays_bring_an_observer_back_and_it_goes_on(axis):
    arrays = pieces(4, 2, 3, 5)
    whole = observed(*arrays, channel_axis=axis)
    half = Observer.from_arrays(observed(*arrays[:2], channel_axis=axis).to_arrays())
    for array in arrays[2:]:
        half.update(array)
    assert half.channel_axis == axis
    mine, other = half.to_arrays(), whole.to_arrays()
    assert mine.keys() == other.keys()
    for name, array in mine.items():
        np.testing.assert_array_equal(array, other[name])


def test_an_empty_array_says_nothing():
    observer = observed(np.zeros((0, 3)), [1, 2])
    assert (observer.low, observer.high, observer.updates) == (1, 2, 1)


@pytest.mark.parametrize(
    ("arrays", "axis", "message"),
    [
        ([[0, np.nan]], None, "got nan at (1,); 1 of 2 values are NaN or infinite"),
        ([[[1, 2], [-np.inf, np.inf]]], None, "got -inf at (1, 0); 2 of 4 values are NaN or infinite"),
        ([[1e200]], None, "got inf at (0,)"),
        ([np.zeros((1, 3)), np.zeros((1, 4))], 1, "expected 3 channels as before, got 4"),
        ([np.zeros(3)], 1, "expected channels along axis 1, got an array of rank 1"),
    ],
)
def test_what_cannot_be_observed(arrays, axis, message):
    with pytest.raises(InputError) as caught:
        observed(*arrays, channel_axis=axis)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("counts", None, "expected 'counts' of shape (16384,), got nothing"),
        ("range", np.zeros(3), "expected 'range' of shape (2,), got float64 of shape (3,)"),
        ("bins", np.zeros(2), "expected 'bins' of shape (2,), got float64 of shape (2,)"),
        ("channel_high", np.zeros(2), "expected 'channel_high' of shape (3,), got float64 of shape (2,)"),
    ],
)
def test_arrays_that_no_observer_wrote(name, array, message):
    arrays = observed(pieces(2, 3), channel_axis=1).to_arrays()
    arrays = {key: value for key, value in arrays.items() if key != name}
    if array is not None:
        arrays[name] = array
    with pytest.raises(InputError) as caught:
        Observer.from_arrays(arrays)
    assert str(caught.value) == message
