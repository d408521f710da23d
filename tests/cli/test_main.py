"""Errors, exit codes and the shared options, in this process: each costs milliseconds."""

import errno
import json
import re

import numpy as np
import pytest

from compiler.bundle import read
from compiler.cli.main import describe
from compiler.support.errors import BuildError, InternalError, UsageError
from tests.bundle.parts import write_sample


@pytest.fixture
def bundle(tmp_path):
    write_sample(tmp_path / "a.kiln")
    return tmp_path / "a.kiln"


def one_line(text):
    """Return the only error line of stderr."""
    (line,) = [line for line in text.splitlines() if "error:" in line]
    assert "Traceback" not in text
    return line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["cmopile"], r"error: No such command 'cmopile'.*compile.*; see 'kiln --help'"),
        (["compile"], r"error: Missing argument.*; see 'kiln compile --help'"),
        (["compile", "x", "--traget", "host"], r"error: No such option.*--target.*; see .*"),
        (["compile", "x", "--threads", "many"], r"error: Invalid value for '--threads'.*"),
        (["compile", "tests.models:tiny", "--target", "rpi44"], r"error: unknown target 'rpi44'; did you.*"),
        (["compile", "tests.models:tiny", "--threads", "0"], r"error: expected at least 1 thread, got 0"),
        (["compile", "no_such.pt2"], r"error: cannot find the model file 'no_such.pt2'"),
        (["compile", "tests.models:nothing"], r"error: 'tests.models' has no 'nothing'.*"),
        (["compile", "tests.models:raises"], r"error: the factory .* raised RuntimeError: the .*"),
        (["compile", "tests.models:bare"], r"error: no example inputs for .*--input image=.*"),
        (["compile", "tests.models:unsupported"], r"error: 1 operator of .* cannot be imported.*"),
        (["compile", "tests.models:tiny", "-o", "/no/such/x.kiln"], r"error: cannot write '/no/such/x.*"),
        (["compile", "tests.models:tiny", "-o", "/dev/full"], r"error: cannot write '/dev/full': .*"),
        (["compile", "tests.models:tiny", "--dump-ir", "/dev/null/ir"], r"error: cannot make the folder .*"),
        (["compile", "tests.models:tiny", "--state", "maybe"], r"error: expected state to be .*"),
        (["info", "none.kiln"], r"error: cannot read the bundle 'none.kiln': No such file or directory"),
        (["run", "none.kiln", "-i", "x.npz"], r"error: cannot read the bundle 'none.kiln': No such .*"),
        (["verify", "none.kiln"], r"error: cannot read the bundle 'none.kiln': No such file or directory"),
        (["targets", "show", "rpi44"], r"error: unknown target 'rpi44'; did you mean 'rpi4'.*"),
        (["bench", "x", "--json", "/no/such/x.json"], r"error: cannot write '/no/such/x.json'.*"),
    ],
)  # fmt: skip
def test_a_users_error_is_one_line_and_exit_code_2(kiln, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    code, out, err = kiln(*words)
    assert code == 2
    assert re.fullmatch(line, one_line(err))
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_damaged_bundles(kiln, bundle, tmp_path):
    whole = bundle.read_bytes()
    edited = bytearray(whole)
    edited[whole.index(bytes(range(200))) + 5] ^= 1
    for data, verb in ((whole[:-50], "info"), (whole[:200], "run"), (bytes(edited), "verify")):
        bundle.write_bytes(data)
        code, out, err = kiln(verb, bundle, *(["-i", "x.npz"] if verb == "run" else []))
        assert (code, out) == (2, "")
        assert one_line(err).startswith(f"error: cannot use the bundle '{bundle}': ")


def test_info_tells_everything(kiln, bundle):
    code, out, err = kiln("info", bundle)
    assert (code, err) == (0, "")
    for word in (
        "tests:made_up", "board", "sse4.2", "0.27.0", "Nx3", "bfloat16", "any", "fold", "4 -> 2 operators",
        "conv2d", "model.so", "10,240", "a note", "y: fine", "one per physical core",
    ):  # fmt: skip
        assert word in out, word


def test_info_as_json_is_the_manifest(kiln, bundle):
    code, out, _ = kiln("info", bundle, "--json")
    assert code == 0
    assert json.loads(out)["signature"]["inputs"][0]["shape"] == ["N", 3]
    assert json.loads(out)["parts"]["model.so"]["size"] == read(bundle).manifest.parts["model.so"].size


def test_markup_in_names_is_shown_as_it_is(kiln, tmp_path):
    write_sample(tmp_path / "b.kiln", model="[red]evil[/red]", notes=("[link=x]n[/link]",))
    _, out, _ = kiln("info", tmp_path / "b.kiln")
    assert "[red]evil[/red]" in out
    assert "[link=x]n[/link]" in out


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "expected --input FILE.npz with these arrays: x: Nx3 float32; ids: 2 int64"),
        (["none.npz"], "cannot read 'none.npz': No such file or directory"),
        (["text.npz"], "expected a .npz or .npy file of numbers, got 'text.npz'"),
        (["pickle.npy"], "expected a .npz or .npy file of numbers, got 'pickle.npy'"),
        (["x.npy"], "'x.npy' holds one array and the model has 2 inputs; write NAME=x.npy"),
        (["y=x.npy"], "there is no input 'y'"),
        (["x=x.npy", "x=x.npy"], "input 'x' is given twice, again in 'x=x.npy'"),
        (["x=both.npz", "idz=both.npz"], "there is no input 'idz'; did you mean 'ids'? (inputs: x, ids)"),
    ],
)
def test_inputs_that_cannot_be_read(kiln, bundle, tmp_path, monkeypatch, inputs, message):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros((2, 3), np.float32))
    np.save("pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez("both.npz", x=np.zeros((2, 3), np.float32), ids=np.zeros(2, np.int64))
    (tmp_path / "text.npz").write_text("hello")
    code, _, err = kiln("run", bundle, *(word for text in inputs for word in ("--input", text)))
    assert code == 2
    assert message in one_line(err)


def test_shared_options_stand_anywhere(kiln, tmp_path):
    for words in (["--debug", "info", "none.kiln"], ["info", "none.kiln", "--debug"]):
        code, _, err = kiln(*words)
        assert code == 2
        assert "Traceback" in err
        assert "error: cannot read the bundle" in err
    assert "Traceback" not in kiln("info", "none.kiln")[2]


def test_help_and_version(kiln):
    assert kiln("--version")[:2] == (0, "kiln 0.1.0\n")
    for words in ([], ["--help"], ["-h"]):
        code, out, _ = kiln(*words)
        assert code == 0
        assert "compile" in out


def test_what_users_can_mend_and_what_they_cannot():
    assert describe(UsageError("x")) == ("error: x", 2)
    assert describe(BuildError("x")) == ("error: x", 2)
    assert describe(InternalError("x")) == ("internal error: x", 1)
    full = OSError(errno.ENOSPC, "No space left on device", "/tmp/a")
    assert describe(full) == ("error: '/tmp/a': No space left on device", 2)
    assert describe(MemoryError()) == ("error: there is not enough memory", 2)
    line, code = describe(ZeroDivisionError("a\nb"))
    assert line.startswith("internal error: ZeroDivisionError: a; run with --debug")
    assert code == 1
    assert describe(KeyError(), debug=True) == ("internal error: KeyError", 1)


def test_an_unexpected_error_is_one_line_and_exit_code_1(kiln, bundle, monkeypatch):
    def fail(*args):
        raise ZeroDivisionError("division by zero\nmore")

    monkeypatch.setattr("compiler.cli.info._facts", fail)
    code, _, err = kiln("info", bundle)
    assert code == 1
    assert one_line(err).startswith("internal error: ZeroDivisionError: division by zero; run with --debug")


def test_a_full_disk_while_outputs_are_written(tmp_path, monkeypatch):
    import zipfile

    from compiler.cli.arrays import write_outputs

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(UsageError, match=r"cannot write '.*y.npz': No space left on device"):
        write_outputs(tmp_path / "y.npz", {"y": np.zeros(3)})
    assert list(tmp_path.iterdir()) == []


def test_outputs_of_any_name_are_written(tmp_path):
    import ml_dtypes

    from compiler.cli.arrays import write_outputs

    outputs = {"file": np.arange(3), "y": np.array([1.5], ml_dtypes.bfloat16)}
    write_outputs(tmp_path / "y.npz", outputs)
    with np.load(tmp_path / "y.npz") as loaded:
        assert loaded["file"].tolist() == [0, 1, 2]
        assert loaded["y"].dtype == np.float32
        assert loaded["y"].tolist() == [1.5]
