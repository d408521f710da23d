"""Whatever happens to its bytes, a bundle is refused in one line or gives exactly what was written."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.bundle import read
from compiler.support.errors import BundleError
from tests.bundle.parts import contents, write_sample


@pytest.fixture(scope="module")
def whole():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.kiln"
        manifest = write_sample(path)
        yield path.read_bytes(), manifest


def identical_or_refused(data, manifest):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "b.kiln"
        path.write_bytes(data)
        try:
            bundle = read(path)
            parts = {name: bundle.read(name) for name in bundle.manifest.parts}
            bundle.golden()
        except BundleError as error:
            message = str(error)
        else:
            message = ""
        if message:
            assert "\n" not in message
            return False
        assert bundle.manifest == manifest
        assert parts == contents()
        return True


def test_the_undamaged_bundle_passes(whole):
    assert identical_or_refused(*whole)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_flipped_bytes(whole, data):
    raw, manifest = whole
    damaged = bytearray(raw)
    # Half of the edits hit the zip's directory at the end, where the structure is.
    low = data.draw(st.sampled_from([0, len(raw) - 900]))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(low, len(raw) - 1))] = data.draw(st.integers(0, 255))
    identical_or_refused(bytes(damaged), manifest)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_truncated(whole, data):
    raw, manifest = whole
    assert not identical_or_refused(raw[: data.draw(st.integers(0, len(raw) - 1))], manifest)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_cut_out_inserted_and_swapped(whole, data):
    raw, manifest = whole
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, min(len(raw), start + 400)))
    filler = data.draw(st.binary(max_size=400))
    identical_or_refused(raw[:start] + filler + raw[end:], manifest)


def test_every_byte_of_the_directory(whole):
    raw, manifest = whole
    start = raw.index(b"PK\x01\x02")
    for position in range(start, len(raw)):
        for value in (0x00, 0xFF, raw[position] ^ 0x01, raw[position] ^ 0x80):
            identical_or_refused(raw[:position] + bytes([value]) + raw[position + 1 :], manifest)
