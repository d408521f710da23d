"""kiln bench from the command line."""

import json
import subprocess
import sys

import pytest

from compiler.cli.bench import remarks, table
from compiler.deploy.benchmark import Report, Timing
from tests.conftest import needs


def _kiln(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "import sys; from compiler.cli import main; sys.exit(main())", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def _timing(median: float, wrong: bool = False) -> Timing:
    return Timing(median, median, median, median, 3, 1e-6, 1e-7, wrong, "as it is", 0.1, "1.0")


def test_a_small_model_is_measured_and_written_down(tmp_path):
    needs("onnxruntime", why="make setup")
    path = tmp_path / "result.json"
    result = _kiln(
        "bench", "tests.deploy.tiny_model:convolution", "--against", "torch,onnxruntime,ncnn",
        "--threads", "1", "--runs", "4", "--json", str(path),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    data = json.loads(path.read_text())
    assert (data["model"], data["precision"], data["threads"]) == (
        "tests.deploy.tiny_model:convolution",
        "fp32",
        1,
    )
    assert data["best_peer"] in data["runtimes"]
    assert (
        data["ratio"]
        == data["runtimes"]["kiln"]["median_ms"] / data["runtimes"][data["best_peer"]]["median_ms"]
    )
    assert set(data["runtimes"]) | set(data["failed"]) == {"kiln", "torch", "onnxruntime", "ncnn"}
    for timing in data["runtimes"].values():
        assert timing["runs"] == 4
        assert 0 < timing["min_ms"] <= timing["median_ms"]
        assert timing["max_abs_error"] < 1e-4
    assert "Kiln" in result.stdout
    assert "Traceback" not in result.stderr


def test_a_peer_that_cannot_take_part_is_named_and_no_error(tmp_path):
    needs("ncnn", "pnnx", why="make setup")
    words = (
        "bench",
        "tests.deploy.tiny_model:batch_of_two",
        "--against",
        "ncnn",
        "--runs",
        "1",
        "--threads",
        "1",
    )
    result = _kiln(*words)
    assert result.returncode == 0, result.stderr
    assert "ncnn is not in the table: it has no batch dimension" in result.stdout
    assert "No peer took part" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tests.deploy.tiny_model:convolution", "--against", "torhc"], "did you mean 'torch'"),
        (["tests.deploy.tiny_model:convolution", "--precision", "fp12"], "fp32"),
        (["tests.deploy.tiny_model:convolution", "--threads", "0"], "threads"),
        (["tests.deploy.tiny_model:convolution", "--json", "no/such/folder/r.json"], "no/such/folder"),
        (["no.such.module:make"], "no.such.module"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(words, message):
    result = _kiln("--quiet", "bench", *words)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_table_is_sorted_and_marks_what_is_wrong():
    from rich.console import Console

    runtimes = {"kiln": _timing(2.0), "torch": _timing(3.0), "ncnn": _timing(1.0, wrong=True)}
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(Report("m", "fp32", 2, "A CPU", runtimes)))
    text = console.export_text()
    assert text.index("ncnn WRONG") < text.index("Kiln") < text.index("PyTorch eager")
    assert "2 threads, A CPU" in text


def test_remarks_give_the_ratio_and_the_reasons():
    runtimes = {"kiln": _timing(2.0), "torch": _timing(4.0)}
    lines = remarks(Report("m", "fp32", 2, "A CPU", runtimes, failed={"mnn": "not installed: MNN"}))
    assert lines[0] == "Kiln takes 0.50 times as long as the best peer, torch."
    assert lines[-1] == "mnn is not in the table: not installed: MNN"
