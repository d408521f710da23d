import hashlib

import ml_dtypes
import numpy as np
import pytest

from compiler.compress.facts import Tally, usual_ranges


def tallied(*arrays, usual=None):
    tally = Tally(usual)
    for array in arrays:
        tally.add({"x": np.asarray(array)})
    return tally


def test_the_hash_is_over_names_types_shapes_and_bytes():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    text = b"x:float32:(2, 3);" + array.tobytes()
    assert tallied(array).sha256 == hashlib.sha256(text).hexdigest()
    assert tallied(array, array).sha256 == hashlib.sha256(text * 2).hexdigest()
    others = [array + 1, array.T, array.reshape(3, 2), array.astype(np.float64), array.view(np.int32)]
    hashes = {tallied(other).sha256 for other in [array, *others]}
    assert len(hashes) == len(others) + 1
    renamed = Tally()
    renamed.add({"y": array})
    assert renamed.sha256 not in hashes
    assert tallied(np.asfortranarray(array)).sha256 == tallied(array).sha256
    assert tallied(np.ones(3, ml_dtypes.bfloat16), np.array(2.0)).batches == 2


@pytest.mark.parametrize(
    ("array", "usual", "note"),
    [
        (
            [0.0, 255.0],
            None,
            "input 'x' ranges from 0 to 255 in the calibration data, all whole numbers:",
        ),
        (
            [0.0, 255.0],
            (-2.1, 2.6),
            "from 0 to 255 in the calibration data and from -2.1 to 2.6 in the",
        ),
        ([0.0, 0.01], (-2.1, 2.6), "is it normalized alike?"),
        ([0.0, 254.5], None, None),
        ([-1.0, 200.0], None, None),
        ([0.0, 100.0], None, None),
        ([-2.0, 2.0], (-2.1, 2.6), None),
        ([0.0, 20.0], (0.0, 0.0), None),
        ([0, 255], (0, 1), None),
    ],
)
def test_ranges_that_are_not_as_trained(array, usual, note):
    notes = tallied(array, usual=usual and {"x": usual}).notes()
    assert len(notes) == (note is not None)
    if note:
        assert note in notes[0]


def test_the_range_is_that_of_all_batches():
    tally = tallied([0.0, 3.0], [0.0, 200.0], [1.0, 2.0])
    assert "from 0 to 200" in tally.notes()[0]
    assert not tallied([0.0, 200.0], [0.5]).notes()


def test_the_usual_range_is_that_of_the_examples():
    examples = [np.array([-1.0, 4.0]), np.array([1, 2]), np.zeros(0)]
    assert usual_ranges(["a", "b", "c"], examples) == {"a": (-1, 4)}
