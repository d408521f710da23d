import hashlib
import io
import json
import stat
import zipfile
from itertools import chain

import numpy as np
import pytest

from compiler.bundle import read
from compiler.bundle.writer import SEAL
from compiler.support.errors import BundleError, UsageError
from tests.bundle.parts import LIBRARY_BYTES, arrays, write_sample


@pytest.fixture
def path(tmp_path):
    write_sample(tmp_path / "a.kiln")
    return tmp_path / "a.kiln"


def rebuild(path, change=None, seal=True, manifest_change=None):
    """Write the archive again as an attacker would: `change(entries)` edits (ZipInfo, bytes) pairs."""
    with zipfile.ZipFile(path) as archive:
        entries = [(info, archive.read(info)) for info in archive.infolist()]
    if manifest_change:
        info, text = entries[0]
        data = json.loads(text)
        manifest_change(data)
        entries[0] = (info, json.dumps(data).encode())
    entries = change(entries) if change else entries
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in entries:
            archive.writestr(info, data)
        if seal:
            text = next((data for info, data in entries if info.filename == "manifest.json"), b"")
            archive.comment = f"{SEAL}{hashlib.sha256(text).hexdigest()}".encode()


def refused(path, message):
    with pytest.raises(BundleError) as caught:
        read(path).verify_parts()
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parts_and_golden_data(path):
    bundle = read(path)
    assert bundle.read("model.so") == LIBRARY_BYTES
    for got, want in zip(chain(*bundle.golden()), chain(*arrays()), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


def test_extracting_writes_a_new_file_only(path, tmp_path):
    read(path).extract("model.so", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == LIBRARY_BYTES
    with pytest.raises(UsageError, match="File exists"):
        read(path).extract("model.so", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == LIBRARY_BYTES


def test_a_damaged_part_is_not_extracted(path, tmp_path):
    rebuild(path, lambda entries: [(i, d[::-1] if i.filename == "model.so" else d) for i, d in entries])
    with pytest.raises(BundleError, match="SHA-256"):
        read(path).extract("model.so", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_file_and_no_zip(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read(tmp_path / "none.kiln")
    with pytest.raises(UsageError, match="directory"):
        read(tmp_path)
    (tmp_path / "text.kiln").write_text("hello")
    refused(tmp_path / "text.kiln", "not a Kiln bundle")
    (tmp_path / "empty.kiln").write_bytes(b"")
    refused(tmp_path / "empty.kiln", "not a Kiln bundle")


def test_an_ordinary_zip_is_no_bundle(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme", "x")
    refused(tmp_path / "a.zip", "no manifest.json")


def test_a_truncated_bundle(path):
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, "cut short")


def test_an_edited_part(path):
    def change(entries):
        return [(info, data[::-1] if info.filename == "model.so" else data) for info, data in entries]

    rebuild(path, change)
    refused(path, "'model.so' is damaged or was changed (its SHA-256 differs)")


def test_an_edited_manifest(path):
    rebuild(path, manifest_change=lambda data: data.update(threads=7), seal=False)
    refused(path, "manifest.json was changed")


def test_another_part_and_a_missing_one(path):
    rebuild(path, lambda entries: [*entries, (zipfile.ZipInfo("extra"), b"x")])
    refused(path, "'extra', which the manifest does not list")
    rebuild(path, lambda entries: [e for e in entries if e[0].filename not in ("extra", "sources/kernel.c")])
    refused(path, "'sources/kernel.c' is missing")


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a//b", "a/./b", "c:evil", "a\\..\\b", "bell\a", "folder/"]
)
def test_names_that_leave_the_bundle(path, name):
    def add(data):
        data["parts"][name] = {"sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}

    rebuild(path, lambda entries: [*entries, (zipfile.ZipInfo(name), b"x")], manifest_change=add)
    refused(path, "is not allowed")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_parts_of_one_name(path):
    rebuild(path, lambda entries: [*entries, entries[1]])
    refused(path, "two parts have the same name")


def test_a_link(path):
    def change(entries):
        info = zipfile.ZipInfo("model.so")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        return [(info, b"/etc/passwd") if e[0].filename == "model.so" else e for e in entries]

    rebuild(path, change)
    refused(path, "not a plain file")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(path, monkeypatch):
    monkeypatch.setattr("compiler.bundle.reader.MAX_COMPRESSED_PART", 1 << 20)
    bomb = bytes(2 << 20)

    def change(entries):
        info = zipfile.ZipInfo("sources/kernel.c")
        info.compress_type = zipfile.ZIP_DEFLATED
        return [(info, bomb) if e[0].filename == "sources/kernel.c" else e for e in entries]

    rebuild(path, change)
    opened = []
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *args, **kwargs: opened.append(args))
    refused(path, "larger than 1 MiB")
    assert not opened


def test_too_many_parts(path, monkeypatch):
    monkeypatch.setattr("compiler.bundle.reader.MAX_PARTS", 3)
    refused(path, "at most 3 parts")


def test_pickles_are_not_loaded(path, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    out = io.BytesIO()
    np.lib.format.write_array(out, np.array([Evil()], dtype=object), allow_pickle=True)
    evil = out.getvalue()

    def add(data):
        name = data["golden"]["inputs"][0]
        data["parts"][name] = {"sha256": hashlib.sha256(evil).hexdigest(), "size": len(evil)}

    def change(entries):
        return [(info, evil if info.filename == "golden/input_0.npy" else data) for info, data in entries]

    rebuild(path, change, manifest_change=add)
    with pytest.raises(BundleError, match=r"input_0.npy.*not a readable"):
        read(path).golden()
    assert not (tmp_path / "pwned").exists()


def test_golden_of_another_type(path):
    wrong = io.BytesIO()
    np.save(wrong, np.zeros((2, 3)))

    def add(data):
        part = {"sha256": hashlib.sha256(wrong.getvalue()).hexdigest(), "size": len(wrong.getvalue())}
        data["parts"]["golden/input_0.npy"] = part

    def change(entries):
        return [(i, wrong.getvalue() if i.filename == "golden/input_0.npy" else d) for i, d in entries]

    rebuild(path, change, manifest_change=add)
    with pytest.raises(BundleError, match="expected elements of type float32, got float64"):
        read(path).golden()
