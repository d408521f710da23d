import ml_dtypes
import numpy as np
import pytest

from compiler.compress.batches import Former, convert
from compiler.support.errors import InputError
from compiler.support.signature import Signature, TensorSpec
from tests.compress.signatures import EIGHT, IMAGE, MANY, STEP, TEXT


def formed(signature, record):
    return list(Former(signature).batches(record, "here"))


def floats(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "count"),
    [((1, 3, 4, 4), 1), ((3, 4, 4), 1), ((5, 3, 4, 4), 5), ((5, 1, 3, 4, 4), 5), ((1, 1, 3, 4, 4), 1)],
)
@pytest.mark.parametrize("wrap", [lambda a: a, lambda a: {"x": a}, lambda a: (a,), lambda a: [a]])
def test_one_or_many_images(shape, count, wrap):
    array = floats(*shape)
    batches = formed(IMAGE, wrap(array))
    assert [batch["x"].shape for batch in batches] == [(1, 3, 4, 4)] * count
    np.testing.assert_array_equal(np.concatenate([b["x"] for b in batches]), array.reshape(-1, 3, 4, 4))


@pytest.mark.parametrize(
    ("signature", "shape", "shapes"),
    [
        (EIGHT, (8, 3), [(8, 3)]),
        (EIGHT, (24, 3), [(8, 3)] * 3),
        (EIGHT, (2, 8, 3), [(8, 3)] * 2),
        (MANY, (5, 3), [(1, 3)] * 5),
        (MANY, (3,), [(1, 3)]),
        (MANY, (2, 5, 3), [(5, 3)] * 2),
    ],
)
def test_batches_of_other_sizes(signature, shape, shapes):
    assert [batch["x"].shape for batch in formed(signature, floats(*shape))] == shapes


def test_the_least_batch_of_a_symbolic_one_and_what_is_left():
    spec = TensorSpec("x", ("N", 3), "float32")
    signature = Signature((spec,), (), dims={"N": (2, None)})
    assert [batch["x"].shape[0] for batch in formed(signature, floats(7, 3))] == [2, 2, 3]
    # A symbol that does not lead the output as well is no number of samples.
    other = Signature((spec,), (TensorSpec("y", (4,), "float32"),), dims={"N": (2, None)})
    assert [batch["x"].shape[0] for batch in formed(other, floats(7, 3))] == [7]


def test_several_inputs_in_order_and_by_name():
    ids, mask = np.arange(12).reshape(2, 6), np.ones((2, 6), np.int32)
    for record in ({"mask": mask, "ids": ids}, (ids, mask), [ids, mask]):
        batches = formed(TEXT, record)
        assert [list(batch) for batch in batches] == [["ids", "mask"]] * 2
        assert batches[1]["ids"].tolist() == [[6, 7, 8, 9, 10, 11]]
        assert {array.dtype.name for batch in batches for array in batch.values()} == {"int64"}


def test_scalars_and_bools():
    batches = formed(STEP, {"x": floats(3, 4), "t": np.arange(3), "on": np.array([[True], [False], [True]])})
    assert [batch["t"].item() for batch in batches] == [0, 1, 2]
    assert [batch["on"].tolist() for batch in batches] == [[True], [False], [True]]
    assert batches[0]["t"].shape == ()
    assert batches[0]["t"].dtype == np.int32
    assert len(formed(STEP, (floats(4), 3, np.array(True)))) == 1


def test_torch_tensors_and_labels_that_follow():
    import torch

    former = Former(IMAGE)
    batches = list(former.batches([torch.ones(2, 3, 4, 4, dtype=torch.bfloat16), torch.zeros(2)], "here"))
    assert [batch["x"].dtype for batch in batches] == [np.float32] * 2
    assert list(former.notes) == ["of the 2 values of an item the first 1 are used, as the model's inputs"]
    weights = torch.ones(1, 3, 4, 4, requires_grad=True)
    assert formed(IMAGE, weights)[0]["x"].sum() == 48


@pytest.mark.parametrize(
    ("signature", "record", "message"),
    [
        (IMAGE, {"X": 1}, "there is no input 'X' (inputs: x) (here)"),
        (TEXT, {"ids": 1, "msak": 2}, "there is no input 'msak'; did you mean 'mask'? (inputs: ids, mask)"),
        (TEXT, {"ids": np.ones((1, 2), int)}, "input 'mask' is missing (inputs: ids, mask) (here)"),
        (TEXT, (np.ones((1, 2), int),), "expected 2 values (ids, mask), got 1 (here)"),
        (
            IMAGE,
            floats(5, 3, 4, 5),
            "input 'x': expected shape 1x3x4x4 or several of them, got 5x3x4x5 (here)",
        ),
        (IMAGE, floats(4, 4), "input 'x': expected shape 1x3x4x4 or several of them, got 4x4 (here)"),
        (IMAGE, floats(0, 3, 4, 4), "input 'x': expected at least one sample, got none (here)"),
        (
            EIGHT,
            floats(12, 3),
            "got 12x3 (here); the model takes 8 at a time: give a multiple of 8",
        ),
        (EIGHT, floats(3), "input 'x': expected shape 8x3 or several of them, got 3 (here)"),
        (MANY, floats(1, 70, 3), "input 'x': expected N of 1 to 64, got 70 (here)"),
        (TEXT, (np.ones((1, 17), int), np.ones((1, 17), int)), "input 'ids': expected S of 1 to 16, got 17"),
        (
            TEXT,
            (np.ones((1, 3), int), np.ones((1, 4), int)),
            "input 'mask': expected S = 3 as in the inputs before it, got 4 (here)",
        ),
        (
            TEXT,
            (np.ones((2, 3), int), np.ones((3, 3), int)),
            "expected as many samples for each input, got 2 for 'ids', 3 for 'mask' (here)",
        ),
        (
            IMAGE,
            np.zeros((2, 3, 4, 4), np.uint8),
            "input 'x': expected float32, got uint8 (sample 0 of here); convert it with .astype('float32'), "
            "scaled as in training",
        ),
        (
            TEXT,
            (np.ones((1, 3)), np.ones((1, 3))),
            "input 'ids': expected int64, got float64 (here); convert it with .astype('int64')",
        ),
        (
            STEP,
            (floats(1, 4), np.array(2**31), np.array([True])),
            "input 't': expected values that fit int32, got 2147483648 to 2147483648 (here)",
        ),
        (STEP, (floats(1, 4), np.array(1), np.array([1])), "input 'on': expected bool, got int64 (here)"),
        (IMAGE, "text", "input 'x': expected numbers, got str of <U4 (here)"),
        (IMAGE, ([[1, 2], [3]],), "input 'x': expected an array, got list (here)"),
        (IMAGE, None, "input 'x': expected numbers, got NoneType of object (here)"),
    ],
)
def test_what_the_model_cannot_take(signature, record, message):
    with pytest.raises(InputError) as caught:
        formed(signature, record)
    assert message in str(caught.value)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e39])
def test_values_that_are_not_finite(wrong):
    record = np.zeros((3, 3, 4, 4))
    record[2, 1, 0, 3] = wrong
    with pytest.raises(InputError) as caught:
        formed(IMAGE, record)
    assert str(caught.value) == (
        f"input 'x': expected finite values of float32, got {wrong} at (0, 1, 0, 3) (sample 2 of here); "
        "mend that sample or leave it out"
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
@pytest.mark.parametrize("given", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_floats_become_floats(dtype, given):
    array = convert(TensorSpec("x", (2, 2), dtype), np.ones((2, 2), given).T, "here")
    assert array.dtype.name == dtype
    assert array.flags.c_contiguous
    scalar = convert(TensorSpec("x", (), dtype), np.array(0.5, given), "here")
    assert scalar.shape == ()
