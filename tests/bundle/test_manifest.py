import dataclasses
import json

import pytest

from compiler.bundle import FORMAT, from_json, to_json
from compiler.bundle.manifest import Manifest
from compiler.support.errors import BundleError
from tests.bundle.parts import manifest, write_sample


@pytest.fixture
def complete(tmp_path):
    return write_sample(tmp_path / "a.kiln")


def edited(complete, path, value):
    """Return the manifest's JSON with the field at `path` set to `value`, or dropped for None."""
    data = json.loads(to_json(complete))
    *steps, last = path
    place = data
    for step in steps:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return json.dumps(data).encode()


def test_json_and_back(complete):
    assert from_json(to_json(complete).encode()) == complete


def test_every_field_is_documented():
    words = Manifest.__doc__.split("\n")
    described = {name.strip(" ") for line in words if ":" in line for name in line.split(":")[0].split(",")}
    assert {field.name for field in dataclasses.fields(Manifest)} <= described


def test_a_newer_format_is_named_with_the_remedy(complete):
    text = edited(complete, ["format"], FORMAT + 1)
    with pytest.raises(BundleError, match=f"format {FORMAT + 1}, made by Kiln 0.1.0.*upgrade"):
        from_json(text)


@pytest.mark.parametrize("value", [0, -1, "1", True, 1.5, [1]])
def test_a_format_that_is_no_version(complete, value):
    with pytest.raises(BundleError, match="format version"):
        from_json(edited(complete, ["format"], value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["kiln"], None, "kiln: Field required"),
        (["threads"], "2", "threads"),
        (["threads"], 0, "at least 1"),
        (["alignment"], 0, "at least 1"),
        (["signature", "inputs", 0, "dtype"], "object", "unknown dtype 'object'"),
        (["signature", "inputs", 0, "dtype"], "float31", "unknown dtype"),
        (["signature", "inputs", 1, "shape"], [-2], "negative"),
        (["signature", "inputs", 1, "name"], "x", "same name"),
        (["signature", "output_tree"], ["*"], "output_tree"),
        (["signature", "output_tree"], {"list": ["*", "*"]}, "output_tree"),
        (["golden", "inputs"], [], "golden data does not fit"),
        (["golden", "outputs"], ["nowhere.npy", "model.so"], "'nowhere.npy' is not among the parts"),
        (["parts", "model.so"], None, "'model.so' is not among the parts"),
        (["parts", "model.so", "size"], "big", "parts.model.so.size"),
    ],
)
def test_wrong_fields_are_named(complete, path, value, message):
    with pytest.raises(BundleError) as caught:
        from_json(edited(complete, path, value))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": NaN}', b"[" * 100_000])
def test_what_is_no_manifest(text):
    with pytest.raises(BundleError):
        from_json(text)


def test_infinity_is_not_written():
    target = dataclasses.replace(manifest().target, descriptor={"x": float("inf")})
    with pytest.raises(ValueError, match="JSON"):
        to_json(manifest(target=target))
