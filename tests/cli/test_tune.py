"""kiln tune as a user meets it: bad input, a full disk, Ctrl-C, a second tuning of the same network."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from compiler import driver_tune
from compiler.cli import main
from compiler.deploy.benchmark_report import Report
from compiler.schedule import log as log_module
from compiler.schedule.log import Log, read_log, write_log
from compiler.schedule.records import AGAIN
from compiler.support.errors import UsageError
from compiler.target import load
from tests.conftest import needs
from tests.schedule.test_records import RECORD

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
NET = "tests.models:tiny"
FEW = ("--threads", "1", "--builders", "1", "--trials", "6")


@pytest.fixture
def kiln(capsys, tmp_path, monkeypatch):
    """Tune with logs in a folder of the test; return the exit code, stdout and stderr."""
    monkeypatch.setattr(driver_tune, "_WATCHED", 0.0)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words):
        code = main(["tune", *map(str, words), "--logs", str(tmp_path / "logs")])
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return run


def _log(tmp_path, name="tiny"):
    return tmp_path / "logs" / load("host").cpu / f"{name}.jsonl"


def _one_line(text):
    (line,) = [line for line in text.splitlines() if "error:" in line]
    assert "Traceback" not in text
    return line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["tests.models:nope"], r"error: 'tests.models' has no 'nope'.*"),
        (["none.onnx"], r"error: cannot find the model file 'none.onnx'.*"),
        ([NET, "--target", "rpi44"], r"error: unknown target 'rpi44'; did you mean 'rpi4'.*"),
        ([NET, "--target", "jetson-orin"], r"error: 'jetson-orin' cannot be tuned: kernels of cuda .*"),
        ([NET, "--minutes", "0"], r"error: expected more than 0 seconds to tune, got 0"),
        ([NET, "--minutes", "-1"], r"error: expected more than 0 seconds to tune, got -60"),
        ([NET, "--minutes", "nan"], r"error: expected more than 0 seconds to tune, got nan"),
        ([NET, "--minutes", "1", "--hours", "1"], r"error: give minutes or hours, not both"),
        ([NET, "--trials", "0"], r"error: expected more than 0 trials to tune, got 0"),
        ([NET, "--until", "soon"], r"error: expected a time of day such as 07:00, got 'soon'"),
        ([NET, "--until", "25:00"], r"error: expected a time of day such as 07:00, got '25:00'"),
        ([NET, "--threads", "0"], r"error: expected 1 to \d+ threads .*, got 0"),
        ([NET, "--builders", "0"], r"error: expected at least 1 process that builds, got 0"),
        ([NET, "--name", "../x"], r"error: expected a plain name of a log, got '../x'; --logs .*"),
        ([NET, "--similar", "nothing"], r"error: 'nothing' is no log and no folder of logs, and as a .*"),
        ([NET, "--similar", "rpi4"], r"error: there are no tuning logs of 'rpi4', neither shipped .*"),
        ([NET, "--against", "tensorrt"], r"error: unknown peer 'tensorrt' \(known: torch, .*\)"),
        ([NET, "--peer-ms", "0"], r"error: expected --peer-ms above 0, got 0"),
        ([NET, "--peer-ms", "1", "--against", "a,b"], r"error: --peer-ms states what one peer takes: .*"),
        ([NET, "--quantize", "log2", "--against", "torch"], r"error: peers have nothing like 'log2': .*"),
        ([NET, "--report", "/no/such/x.html"], r"error: cannot write '/no/such/x.html': .*"),
        ([NET, "--quantize", "int9"], r"error: there is no scheme 'int9'.*"),
    ],
)  # fmt: skip
def test_a_users_error_is_one_line_and_leaves_no_log(kiln, tmp_path, words, line):
    code, out, err = kiln(*words)
    assert code == 2
    assert re.fullmatch(line, _one_line(err))
    assert out == ""
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
    from compiler.cli.tune_peer import peer_time
    from compiler.deploy.peers import session

    missing = "not installed: openvino (pip install 'kiln-compiler[peers]')"
    report = Report(NET, "fp32", 1, "a CPU", {}, {"openvino": missing})
    monkeypatch.setattr("compiler.cli.bench.measure", lambda plan: report)
    with pytest.raises(UsageError, match=re.escape(f"no peer could be measured: openvino: {missing}")):
        peer_time(NET, "openvino", None)
    monkeypatch.setattr(session.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(session.PeerError, match=re.escape(missing)):
        session.require("openvino")


def test_the_fastest_peer_is_measured_at_the_precision_of_the_tuning():
    from compiler.cli.tune_peer import peer_time, plan

    found = peer_time(NET, "torch", None, threads=1)
    assert found.name == "torch"
    assert 0 < found.seconds < 1
    made = plan(NET, "onnxruntime,openvino", None, 1, "int8-tensor", "data.npz")
    assert (made.precision, made.calibrate, made.peers_only) == ("int8", "data.npz", True)
    assert plan(NET, "openvino", None, 1, "bf16", None).precision == "bf16"
    assert plan(NET, "openvino", None, 1, None, None).precision == "fp32"


def test_without_xgboost_one_line_says_what_to_install(kiln, monkeypatch):
    find = driver_tune.importlib.util.find_spec
    monkeypatch.setattr(
        driver_tune.importlib.util, "find_spec", lambda name: None if name == "xgboost" else find(name)
    )
    code, _, err = kiln(NET)
    assert code == 2
    assert _one_line(err) == "error: tuning learns with XGBoost: pip install 'kiln-compiler[tune]'"


def test_a_log_that_cannot_be_written_is_found_out_at_once(kiln, tmp_path, monkeypatch):
    monkeypatch.setattr(driver_tune, "build_module", None)  # nothing is built before
    path = _log(tmp_path)
    path.mkdir(parents=True)
    code, _, err = kiln(NET, *FEW)
    assert code == 2
    assert _one_line(err).startswith(f"error: cannot write the tuning log '{path}': Is a directory")
    path.rmdir()
    path.parent.rmdir()
    path.parent.write_text("")
    code, _, err = kiln(NET, *FEW)
    assert code == 2
    assert str(path) in _one_line(err)


def test_a_second_tuning_of_a_log_is_refused_and_changes_nothing(kiln, tmp_path, monkeypatch):
    monkeypatch.setattr(driver_tune, "build_module", None)
    path = _log(tmp_path)
    path.parent.mkdir(parents=True)
    with Log(path) as log:
        log.append(RECORD)
        before = path.read_bytes()
        code, _, err = kiln(NET, *FEW)
        assert code == 2
        assert _one_line(err).startswith(f"error: another kiln is writing '{path}': wait for it")
        assert path.read_bytes() == before
        assert [each.name for each in path.parent.iterdir()] == ["tiny.jsonl"]


def test_a_full_disk_foreign_lines_and_what_another_network_had(kiln, tmp_path, monkeypatch):
    path, sync, written = _log(tmp_path), os.fsync, []

    def full(handle):
        written.append(handle)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(log_module.os, "fsync", full)
    page = tmp_path / "page.html"
    code, out, err = kiln(NET, *FEW, "--report", page)
    assert code == 2
    assert _one_line(err) == (
        f"error: cannot write the tuning log '{path}': No space left on device; "
        "what was measured before is safe"
    )
    assert f"trials are in {path}; the same command goes on from there" in err
    logged = read_log(path)
    assert (len(logged.records), logged.problems) == (3, ())
    assert path.read_bytes().endswith(b"}\n")
    assert page.read_text(encoding="utf-8").endswith("</html>\n")

    # There is room again. Meanwhile another Kiln and another program wrote lines.
    monkeypatch.undo()
    monkeypatch.setattr(driver_tune, "_WATCHED", 0.0)
    with path.open("a") as stream:
        stream.write('{"format": 99, "workload": "w"}\n{"speed": 1}\nhello\n')
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = kiln(NET, *FEW, "--peer-ms", "5", "--against", "openvino")
    assert code == 0, err
    assert "going on after 3 trials" in err
    for words in (
        "line 4: it has the format 99, this Kiln reads",
        "line 5: it is no record",
        "line 6: it is no",
    ):
        assert words in err, words
    assert re.search(r"ms untuned, .* ms tuned .*, 0\.\d+ of openvino 5\.000 ms; ", out)
    kept = read_log(path)
    assert len(kept.problems) == 3
    assert kept.records[:3] == logged.records
    trials = [each.trial for each in kept.records if each.note != AGAIN]
    assert len(trials) == len(set(trials)) == 6
    assert not list(tmp_path.rglob("*.session"))

    table = [line for line in out.splitlines() if "conv2d" in line or line.startswith("kernel")]
    assert len(table) == 2
    assert all(len(line.rstrip()) <= 80 for line in table)

    # The same kernels in another network: of the first one's trials only the best are measured again.
    code, out, err = kiln(NET, *FEW, "--name", "again")
    assert code == 0, err
    assert "kernels are known from earlier tunings" in err
    again = [each.trial for each in read_log(_log(tmp_path, "again")).records if each.note != AGAIN]
    assert len(again) == len(set(again)) == 6
    assert 1 < len(set(again) & set(trials)) <= 4, "the default and the best"


def test_a_log_of_another_architecture_is_not_of_a_similar_device(kiln, tmp_path):
    other = tmp_path / "other.jsonl"
    write_log(other, [replace(RECORD, device="m68k-linux-68040-1c#0")])
    code, _, err = kiln(NET, *FEW, "--similar", other)
    assert code == 2
    found = f"expected records of another {load('host').arch} device in '{other}', found none"
    assert found in _one_line(err)


def test_what_is_ended_leaves_its_page_and_goes_on(tmp_path):
    needs("plotly", why="make setup")
    page = tmp_path / "page.html"
    words = [
        sys.executable, "-m", "compiler.cli", "tune", NET, "--threads", "1", "--builders", "1",
        "--trials", "900", "--logs", str(tmp_path / "logs"), "--report", str(page),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": ROOT, "XDG_DATA_HOME": str(tmp_path / "own")}
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    path, limit = _log(tmp_path), time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < 4:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < limit
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "the same command goes on from there" in err
    text = page.read_text(encoding="utf-8")
    assert text.endswith("</html>\n")
    assert "<details><summary>conv2d" in text
    assert "of peak" in text
    assert path.with_name("tiny.jsonl.session").exists()
    assert not read_log(path).problems
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []
