"""kiln logs export and import: as a user calls them."""

import pytest

from compiler import frontend
from compiler.cli import main
from compiler.passes import optimize
from compiler.schedule.log import read_log, write_log
from compiler.schedule.records import Record, identity
from compiler.schedule.space import to_plain
from compiler.schedule.traces import traced
from compiler.target import load
from compiler.tune.task import find_tasks
from tests import models

MODEL = "tests.models:resize"


@pytest.fixture
def run(capfd, monkeypatch, tmp_path):
    """Run a command line; return its exit code, stdout and stderr."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def call(*words):
        code = main([str(word) for word in words])
        return code, *capfd.readouterr()

    return call


def write_trace(path):
    """Write a log of one trace of the model's kernel; return its record."""
    host = load("host")
    mod, _ = optimize(frontend.load(*models.resize()).mod, host)
    (task,) = find_tasks(mod, host)
    decisions = to_plain(traced(task.space.designs()[0].trace))
    record = Record(
        workload=task.workload, device=identity(host), threads=1, rule="fallback", decisions=decisions,
        seconds=(1e-5, 2e-5),
    )  # fmt: skip
    write_log(path, [record])
    return record


def test_a_log_goes_to_a_database_and_comes_back(run, tmp_path):
    record = write_trace(tmp_path / "log.jsonl")
    database, back = tmp_path / "database", tmp_path / "back.jsonl"
    options = ("--threads", 1, "-q")
    code, out, _ = run("logs", "export", MODEL, "--logs", tmp_path / "log.jsonl", "-o", database, *options)
    assert (code, out) == (0, f"wrote {database} (1 records)\n")
    assert {path.name for path in database.iterdir()} == {
        "database_workload.json",
        "database_tuning_record.json",
    }
    code, out, _ = run("logs", "import", MODEL, database, "-o", back, *options)
    assert (code, out) == (0, f"wrote {back} (1 records)\n")
    (found,) = read_log(back).records
    assert (found.key, found.decisions, found.seconds) == (record.key, record.decisions, record.seconds)

    code, _, err = run("logs", "export", MODEL, "-o", database, *options)
    assert code == 2
    assert "holds a database already" in err
    assert run("logs", "export", MODEL, "--logs", back, "-o", tmp_path / "again", *options)[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("import", MODEL, "none"), "expected a database of MetaSchedule's in 'none'"),
        (("import", MODEL, "none", "-t", "jetson-orin-nano"), "expected a CPU"),
        (("export", MODEL, "-t", "jetson-orin-nano"), "expected a CPU"),
        (("export", MODEL), "no kernel of the model has a record"),
    ],
)
def test_what_cannot_be_is_refused(run, tmp_path, words, message):
    code, _, err = run("logs", *words, "-o", tmp_path / "new", "--threads", 1, "-q")
    assert code == 2
    assert message in err
    assert not (tmp_path / "new").exists()
