"""Reading descriptor files: hostile and damaged ones end in one clear error, soon."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.support.errors import TargetError
from compiler.support.resources import data_folder
from compiler.target import Target
from compiler.target_schema import read
from compiler.target_yaml import MAX_BYTES, read_yaml


def write(folder, text):
    path = folder / "board.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_lines_and_sizes(tmp_path):
    data, lines = read_yaml(write(tmp_path, "a: 32 KiB\n\nb:\n  c: [1, 2MiB]\nd: 1.5\ne: 2020-01-01\n"))
    assert data == {"a": 32 << 10, "b": {"c": [1, 2 << 20]}, "d": 1.5, "e": "2020-01-01"}
    assert (lines["a",], lines["b", "c"], lines["d",]) == (1, 4, 5)


BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)
HOSTILE = {
    "": "expected a mapping",
    "- a\n": "expected a mapping of keys to values in '.*', got a list",
    "a: [": "got an error at line 1",
    "a: 1\na: 2\n": "line 2: the key 'a' stands there twice",
    "a: !!python/object/apply:os.system [echo]\n": "line 1: the tag '.*os.system' is not allowed",
    "a: !!set {x}\n": "line 1: the tag '.*set' is not allowed",
    "? [a]\n: 1\n": "line 1: expected a word as key, got a list",
    "a: 1\n---\nb: 2\n": "expected one document",
    "&x a: *x\n": "anchors and aliases",
    "a: &self [*self]\n": "anchors and aliases",
    BOMB: "anchors and aliases",
    "[" * 5000: "nested levels",
    "a: " + "{a: " * 3000: "nested levels",
    "a: " + "x" * MAX_BYTES: f"at most {MAX_BYTES} bytes",
    "a: !!int xyz\n": "line 1: cannot read the value 'xyz'",
    "a: !!float xyz\n": "cannot read the value",
    "a: " + "9" * 5000: "line 1: cannot read the value '9999",
    "a: \x07\n": "expected YAML",
    "a:\tb: c": "got an error at line 1",
    "%YAML 9.9\n---\na: 1\n": "expected YAML",
}


@pytest.mark.parametrize(("text", "message"), HOSTILE.items(), ids=range(len(HOSTILE)))
def test_hostile_files(text, message, tmp_path):
    with pytest.raises(TargetError, match=message) as error:
        read(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_not_text(tmp_path):
    with pytest.raises(TargetError, match="expected UTF-8 text"):
        read(write(tmp_path, b"a: \xff\xfe\n"))
    with pytest.raises(TargetError, match=r"cannot read .*: Is a directory"):
        read(tmp_path)
    with pytest.raises(TargetError, match="expected the path"):
        read(tmp_path / "a\0b.yaml")


TEXTS = [path.read_text() for path in sorted(data_folder("targets").glob("*.yaml"))]
VALUES = ["", "[]", "{}", "null", "-1", "1e99", ".nan", "0x10", "true", "'x'", "[1, [2]]", "{a: 1}"]
VALUES += ["10**9", "1 GiB", "~", "&a", "*a"]


@st.composite
def damaged(draw):
    """A shipped descriptor with a few lines, values or characters lost, changed or doubled."""
    lines = draw(st.sampled_from(TEXTS)).splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["drop", "double", "value", "cut", "character", "indent"])):
            case "drop" if len(lines) > 1:
                del lines[at]
            case "double":
                lines.insert(at, lines[draw(st.integers(0, len(lines) - 1))])
            case "value":
                lines[at] = f"{lines[at].split(':')[0]}: {draw(st.sampled_from(VALUES))}"
            case "cut":
                lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
            case "character":
                place = draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:place] + draw(st.characters(codec="utf-8")) + lines[at][place + 1 :]
            case "indent":
                lines[at] = "  " + lines[at]
    return "\n".join(lines)


def outcome(path):
    """Return the target, or the one line that says why there is none; any other error propagates."""
    try:
        return read(path)
    except TargetError as error:
        return str(error)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=damaged())
def test_damaged_descriptors_give_a_target_or_a_target_error(text, tmp_path):
    result = outcome(write(tmp_path, text))
    assert isinstance(result, Target) or len(result.splitlines()) == 1


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=200))
def test_any_bytes_give_a_target_error(raw, tmp_path):
    assert len(outcome(write(tmp_path, raw)).splitlines()) == 1
