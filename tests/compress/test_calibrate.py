import numpy as np
import pytest

from compiler.compress.calibrate import Statistics, calibrate
from compiler.compress.data import open_data, random_data
from compiler.compress.observers import Observer
from compiler.compress.ranges import METHODS
from compiler.compress.scheme import Linear
from compiler.support import progress
from compiler.support.errors import InputError, UsageError
from compiler.support.progress import watching
from tests.compress.signatures import IMAGE, TEXT

SAMPLES = np.random.default_rng(0).standard_normal((6, 3, 4, 4)).astype(np.float32)


def run(arrays):
    (x,) = arrays
    return [x, np.maximum(x, 0) * 3, x.sum(axis=(2, 3))]


def observers():
    return {"x": Observer(), "conv/relu:0": Observer(channel_axis=1), "sum": Observer()}


@pytest.fixture
def statistics():
    return calibrate(run, open_data(SAMPLES, IMAGE), observers())


class Watcher:
    def __init__(self):
        self.notes = []

    def begin(self, name):
        pass

    def note(self, text):
        self.notes.append(text)

    def end(self, name, seconds, failed):
        pass


def test_each_tensor_meets_its_observer(statistics):
    assert list(statistics) == ["x", "conv/relu:0", "sum"]
    assert len(statistics) == 3
    assert (statistics["x"].low, statistics["x"].high) == (SAMPLES.min(), SAMPLES.max())
    assert statistics["conv/relu:0"].low == 0
    np.testing.assert_array_equal(statistics["conv/relu:0"].channels.high, (SAMPLES * 3).max(axis=(0, 2, 3)))
    assert statistics["sum"].updates == 6
    assert statistics.data.batches == 6
    assert statistics.data.origin == "the ndarray given"


def test_inputs_come_in_the_order_of_the_signature():
    seen = []

    def record(arrays):
        seen.append([array[0, 0] for array in arrays])
        return []

    calibrate(record, open_data({"mask": np.full((2, 3), 7), "ids": np.full((2, 3), 5)}, TEXT), {})
    assert seen == [[5, 7], [5, 7]]


def test_saved_statistics_give_any_method_its_range_again(statistics, tmp_path):
    path = tmp_path / "statistics.npz"
    statistics.save(path)
    loaded = Statistics.load(path)
    assert list(loaded) == list(statistics)
    assert loaded.data == statistics.data
    for name, observer in statistics.items():
        for method in METHODS.values():
            assert method.range(loaded[name], Linear(8)) == method.range(observer, Linear(8))
    whole = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == whole
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["1/channel_high"].shape == (3,)
    empty = calibrate(lambda arrays: [], random_data(IMAGE, 1), {})
    empty.save(path)
    assert Statistics.load(path).data.is_random


def test_statistics_of_another_model(statistics):
    statistics.require(["x", "sum"])
    with pytest.raises(InputError) as caught:
        statistics.require(["x", "y", "z"])
    assert str(caught.value) == (
        "the statistics lack 2 of the model's tensors, the first 'y': "
        "they are of another model or version of it; calibrate again"
    )


def test_files_that_are_no_statistics(statistics, tmp_path):
    path = tmp_path / "statistics.npz"
    with pytest.raises(UsageError, match=r"cannot read .* No such file"):
        Statistics.load(path)
    path.write_bytes(b"text")
    with pytest.raises(UsageError, match="expected a file of calibration statistics"):
        Statistics.load(path)
    np.savez(path, x=np.zeros(3))
    with pytest.raises(UsageError, match="expected a file of calibration statistics"):
        Statistics.load(path)
    np.savez(path, format=np.array(99))
    with pytest.raises(UsageError, match=r"expected statistics of format 3 in .* got 99: .* calibrate again"):
        Statistics.load(path)
    statistics.save(path)
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "1/counts"}
    np.savez(path, **arrays)
    with pytest.raises(UsageError, match="expected 'counts' of shape"):
        Statistics.load(path)
    with pytest.raises(UsageError, match="cannot write"):
        statistics.save(tmp_path / "none" / "x.npz")


def test_a_model_that_computes_nan_is_found_with_its_sample():
    def divide(arrays):
        x = arrays[0]
        return [x, x, x / 0 if (x == SAMPLES[4]).all() else x]

    with np.errstate(divide="ignore"), pytest.raises(InputError) as caught:
        calibrate(divide, open_data(SAMPLES, IMAGE), observers())
    assert str(caught.value).startswith("the model's tensor 'sum' cannot be quantized: got ")
    assert "(sample 4 of the ndarray given); look at that sample, or keep the layer in float" in str(
        caught.value
    )


def test_no_data_is_an_error():
    with pytest.raises(InputError, match="expected calibration data, got none from the list given"):
        calibrate(run, open_data([], IMAGE), observers())


def test_it_says_how_far_it_is_and_what_is_odd(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    np.savez("samples.npz", x=SAMPLES)
    watcher = Watcher()
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_NOTES", 0)
    with watching(watcher):
        calibrate(run, open_data("samples.npz", IMAGE), observers())
        assert watcher.notes[1] == "sample 2 of 6, 0 s left"
        calibrate(run, open_data(list(SAMPLES), IMAGE), observers())
        assert watcher.notes[-1] == "sample 6"
        calibrate(run, random_data(IMAGE, 1), observers())
        assert watcher.notes[-1].startswith("the calibration data is random")
