import contextlib
import tracemalloc
import zipfile

import numpy as np
import pytest

from compiler.compress.batches import Cut, Former
from compiler.compress.npz_file import read_batches, read_headers
from compiler.support.errors import InputError, UsageError
from tests.compress.signatures import IMAGE, MANY, STEP


def read(path, signature):
    headers = read_headers(path)
    cuts = Former(signature).cuts({name: header.shape for name, header in headers.items()}, "here")
    return list(read_batches(path, headers, cuts))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("shape", [(5, 3, 4, 4), (5, 1, 3, 4, 4), (1, 3, 4, 4), (3, 4, 4)])
def test_batches_are_those_of_the_arrays(tmp_path, save, shape):
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for stored in (array, np.asfortranarray(array), array.astype(">f4")):
        save(tmp_path / "x.npz", x=stored)
        batches = read(tmp_path / "x.npz", IMAGE)
        whole = np.concatenate([batch["x"].reshape(-1, 3, 4, 4) for batch in batches])
        np.testing.assert_array_equal(whole, array.reshape(-1, 3, 4, 4))


def test_several_arrays_and_scalars(tmp_path):
    x, t, on = np.ones((3, 4), np.float32), np.arange(3), np.ones((3, 1), bool)
    np.savez(tmp_path / "x.npz", t=t, on=on, x=x)
    batches = read(tmp_path / "x.npz", STEP)
    assert [list(batch) for batch in batches] == [["x", "t", "on"]] * 3
    assert [int(batch["t"]) for batch in batches] == [0, 1, 2]
    assert all(array.flags.writeable for array in batches[0].values())


def test_memory_does_not_grow_with_the_file(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((400_000, 3), np.float32))
    headers = read_headers(tmp_path / "x.npz")
    cuts = {"x": Cut(400, 1000)}
    tracemalloc.start()
    for batch in read_batches(tmp_path / "x.npz", headers, cuts):
        assert batch["x"].shape == (1000, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000 < 400_000 * 12


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a .npz file of numbers, got "),
        (b"PK\x03\x04 no zip", "expected a .npz file of numbers, got "),
    ],
)
def test_files_that_are_none(tmp_path, content, message):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_headers(path)
    assert str(caught.value).startswith(message)


def test_missing_files_objects_and_other_zips(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read '.*none\.npz': No such file"):
        read_headers(tmp_path / "none.npz")
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    with pytest.raises(UsageError, match="an array of Python objects"):
        read_headers(tmp_path / "objects.npz")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("x.npy", "text")
    with pytest.raises(UsageError, match=r"expected a \.npz file of numbers"):
        read_headers(tmp_path / "other.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_is_found_wherever_it_is(tmp_path, save):
    path = tmp_path / "x.npz"
    save(path, x=np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32))
    whole = path.read_bytes()
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        # Either nothing that matters was hit, or it is said; nothing else is raised.
        with contextlib.suppress(UsageError, InputError):
            assert len(read(path, MANY)) == 64
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError):
        read(path, MANY)
