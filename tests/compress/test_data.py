import numpy as np
import pytest
import torch

from compiler.compress.data import open_data, random_data
from compiler.compress.images import ImageTransform
from compiler.support.errors import InputError, UsageError
from tests.compress.signatures import IMAGE, MANY, STEP, TEXT

SAMPLES = np.random.default_rng(0).standard_normal((6, 3, 4, 4)).astype(np.float32)

CODE = """
import numpy as np

def plain(count=6):
    for number in range(count):
        yield np.load("samples.npy")[number]

def mapping():
    return [{"x": sample} for sample in np.load("samples.npy")]

def failing():
    yield np.load("samples.npy")[0]
    raise KeyError("no more")

ready = mapping

def nothing():
    return iter(())
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    np.save(tmp_path / "samples.npy", SAMPLES)
    np.savez(tmp_path / "samples.npz", x=SAMPLES)
    (tmp_path / "calibration_code.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    monkeypatch.delitem(__import__("sys").modules, "calibration_code", raising=False)
    return tmp_path


class Dataset(torch.utils.data.Dataset):
    def __len__(self):
        return len(SAMPLES)

    def __getitem__(self, index):
        if index >= len(SAMPLES):
            raise IndexError
        return torch.from_numpy(SAMPLES[index]), index


class Rows:
    def __iter__(self):
        return ((sample,) for sample in SAMPLES)


SOURCES = {
    "npz": lambda: "samples.npz",
    "function of a module": lambda: "calibration_code:plain",
    "with arguments": lambda: "calibration_code:plain(count=6)",
    "of a file": lambda: "calibration_code.py:mapping",
    "function": lambda: lambda: iter(SAMPLES),
    "mapping": lambda: {"x": SAMPLES},
    "array": lambda: SAMPLES,
    "tensor": lambda: torch.from_numpy(SAMPLES),
    "list": lambda: list(SAMPLES),
    "list of mappings": lambda: [{"x": sample} for sample in SAMPLES],
    "iterable": Rows,
    "dataset": Dataset,
    "loader": lambda: torch.utils.data.DataLoader(Dataset(), batch_size=4),
    "loader of mappings": lambda: torch.utils.data.DataLoader([{"x": sample} for sample in SAMPLES]),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_batches_time_and_again(here, kind):
    data = open_data(SOURCES[kind](), IMAGE)
    for _ in range(2):
        batches = list(data)
        assert [list(batch) for batch in batches] == [["x"]] * 6
        np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in batches]), SAMPLES)
    assert data.length in (6, None)
    assert not data.is_random
    limited = open_data(SOURCES[kind](), IMAGE, limit=2)
    assert len(list(limited)) == 2
    assert limited.length in (2, None)


def facts_of(data):
    tally = data.tally()
    for batch in data:
        tally.add(batch)
    return data.facts(tally)


def test_the_hash_is_that_of_what_is_fed_wherever_it_is_from(here):
    facts = [facts_of(open_data(make(), IMAGE)) for make in SOURCES.values()]
    assert {(each.sha256, each.batches, each.is_random) for each in facts} == {(facts[0].sha256, 6, False)}
    assert facts_of(open_data(SAMPLES, IMAGE, limit=5)).sha256 != facts[0].sha256
    assert facts[0].origin == "'samples.npz'"
    assert facts[0].notes == ()
    assert "the first 1 are used" in facts_of(open_data(Dataset(), IMAGE)).notes[0]


def test_images(here):
    pillow = pytest.importorskip("PIL.Image")
    for number in range(3):
        pillow.new("RGB", (9, 9), (number * 100, 0, 0)).save(here / f"{number}.png")
    data = open_data(here, IMAGE, transform=ImageTransform.parse("resize=4"))
    assert data.length == 3
    assert [round(float(batch["x"][0, 0].mean() * 255)) for batch in data] == [0, 100, 200]
    facts = facts_of(open_data(str(here), MANY_IMAGES))
    assert facts.origin == f"3 images of '{here}'"
    assert facts.batches == 1
    assert facts.notes == (
        f"no transform was given for the images of '{here}'; used is resize=4x4",
        f"the last 1 images of '{here}' are left out; a batch is 2",
    )


MANY_IMAGES = type(IMAGE)((type(IMAGE.inputs[0])("x", (2, 3, 4, 4), "float32"),), ())


def test_examples_tell_what_is_usual():
    facts = facts_of(open_data(SAMPLES * 100, IMAGE, examples=(SAMPLES[:1],)))
    assert "is it normalized alike?" in facts.notes[0]
    assert facts_of(open_data(SAMPLES, IMAGE, examples=(SAMPLES[:1],))).notes == ()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing.npz", "cannot read 'nothing.npz': No such file or directory"),
        (
            "nothing",
            "cannot find the calibration data 'nothing': give a .npz file, a folder",
        ),
        ("no_such_module:plain", "cannot find the Python module 'no_such_module'"),
        ("calibration_code:plane", "'calibration_code' has no 'plane'; did you mean 'plain'?"),
        ("samples.npy", "expected a .npz file of numbers, got 'samples.npy'"),
        (3, "expected calibration data, got the int given: give a file, a function or a list"),
        (
            iter([]),
            "expected data that can be gone through more than once, got the list_iterator given: give the "
            "function that makes it, or a list",
        ),
    ],
)
def test_data_that_is_none(here, source, message):
    with pytest.raises(UsageError) as caught:
        open_data(source, IMAGE)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("calibration_code:nothing", "expected calibration data, got none from 'calibration_code:nothing'"),
        ([], "expected calibration data, got none from the list given"),
        (
            "calibration_code:failing",
            "'calibration_code:failing' failed after 1 items: KeyError: 'no more' at calibration_code.py:13",
        ),
        ("calibration_code:plain(count=7)", "failed after 6 items: IndexError: index 6 is out of bounds"),
        ("calibration_code:plain(size=7)", "failed after 0 items: TypeError: plain() got an unexpected"),
        ([SAMPLES[0], SAMPLES[0, 0]], "got 4x4 (item 1 of the list given)"),
        ([SAMPLES[:2], SAMPLES * np.nan], "(sample 0 of item 1 of the list given)"),
        ({"y": SAMPLES}, "there is no input 'y' (inputs: x) (the data)"),
    ],
)
def test_data_that_the_model_cannot_take(here, source, message):
    data = open_data(source, IMAGE)
    with pytest.raises(InputError) as caught:
        list(data)
    assert message in str(caught.value)


def test_a_file_that_does_not_fit_is_found_before_anything_runs(here):
    with pytest.raises(InputError, match=r"there is no input 'x' \(inputs: ids, mask\) \('samples.npz'\)"):
        open_data("samples.npz", TEXT)
    np.savez(here / "nan.npz", x=np.full((2, 3, 4, 4), np.nan, np.float32))
    with pytest.raises(InputError, match=r"got nan at \(0, 0, 0, 0\) \(sample 0 of 'nan.npz'\)"):
        list(open_data("nan.npz", IMAGE))


def test_options_that_do_not_fit(here):
    with pytest.raises(UsageError, match=r"an image transform needs a folder of images, got 'samples.npz'"):
        open_data("samples.npz", IMAGE, transform=ImageTransform())
    with pytest.raises(UsageError, match="expected at least 1 sample of calibration data, got a limit of 0"):
        open_data(SAMPLES, IMAGE, limit=0)


@pytest.mark.parametrize("signature", [IMAGE, MANY, STEP, TEXT])
def test_random_data(signature):
    data = random_data(signature, 3, seed=5)
    assert data.is_random
    assert data.length == 3
    first, again = list(data), list(data)
    assert len(first) == 3
    for one, two in zip(first, again, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
    name = signature.inputs[0].name
    if name == "x":
        assert not np.array_equal(first[0]["x"], first[1]["x"])
    facts = facts_of(data)
    assert facts.is_random
    assert facts.notes[0].startswith("the calibration data is random")
    assert facts.origin == "3 random samples of seed 5"
    assert facts_of(random_data(signature, 3, seed=6)).sha256 != facts.sha256
