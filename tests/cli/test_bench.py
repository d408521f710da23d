"""kiln bench from the command line."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from compiler.cli.bench import _peers, remarks, table
from compiler.cli.layers import layer_table, totals
from compiler.compress.facts import DataFacts
from compiler.deploy.benchmark_report import Report, Timing
from compiler.deploy.peak import Peak
from compiler.deploy.peers import PEERS
from compiler.deploy.profile import LayerTime, Profile
from tests.conftest import needs


@pytest.fixture
def bench(kiln):
    """Run the command line; return what a process would have given."""

    def run(*words):
        return subprocess.CompletedProcess(words, *kiln(*words))

    return run


def _timing(median: float, wrong: bool = False) -> Timing:
    return Timing(median, median, median, median, 3, 1e-6, 1e-7, wrong, "as it is", 0.1, "1.0")


def test_a_small_model_is_measured_and_written_down(tmp_path, bench):
    needs("onnxruntime", why="make setup")
    path = tmp_path / "result.json"
    result = bench(
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


def test_a_peer_that_cannot_take_part_is_named_and_no_error(tmp_path, bench):
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
    result = bench(*words)
    assert result.returncode == 0, result.stderr
    assert "ncnn is not in the table: it has no batch dimension" in result.stdout
    assert "No peer took part" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tests.deploy.tiny_model:convolution", "--against", "torhc"], "did you mean 'torch'"),
        (["tests.deploy.tiny_model:convolution", "--precision", "fp12"], "fp32"),
        (["tests.deploy.tiny_model:convolution", "--threads", "0"], "threads"),
        (["tests.deploy.tiny_model:convolution", "--calibrate", "data.npz"], "--precision int8"),
        (["tests.deploy.tiny_model:convolution", "--json", "no/such/folder/r.json"], "no/such/folder"),
        (["no.such.module:make"], "no.such.module"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(words, message, bench):
    result = bench("--quiet", "bench", *words)
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


def test_below_float32_the_table_gives_decibels():
    from rich.console import Console

    timing = replace(_timing(2.0), sqnr_db=34.25, top1=0.96875)
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(Report("m", "int8", 2, "A CPU", {"kiln": timing, "torch": _timing(3.0)})))
    text = console.export_text()
    assert "SQNR dB" in text
    assert "34.2" in text
    assert "96.9%" in text
    assert "max error" not in text


def test_remarks_tell_of_the_data_and_of_settings_that_failed():
    settings = {
        "NNCF": {"failed": "not installed: nncf"},
        "QDQ": {"ms": 2.0, "sqnr_db": 30.0, "wrong": False},
    }
    runtimes = {"kiln": _timing(2.0), "openvino": replace(_timing(4.0), settings=settings)}
    data = DataFacts("'photos'", "0" * 64, 64)
    lines = remarks(Report("m", "int8", 2, "A CPU", runtimes, calibration=data, notes=("it is random",)))
    assert "NOTE: it is random" in lines
    assert "Calibrated and judged with 'photos': 64 samples." in lines
    assert "openvino without 'NNCF': not installed: nncf" in lines


def test_int8_is_measured_on_the_users_data(tmp_path, bench):
    needs("onnxruntime", why="make setup")
    np.savez(tmp_path / "data.npz", input=np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype("f"))
    path = tmp_path / "result.json"
    result = bench(
        "bench", "tests.deploy.tiny_model:convolution", "--precision", "int8",
        "--calibrate", str(tmp_path / "data.npz"), "--against", "onnxruntime,mnn",
        "--threads", "1", "--runs", "2", "--json", str(path),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    data = json.loads(path.read_text())
    assert data["precision"] == "int8"
    assert data["calibration"]["batches"] == 4
    assert set(data["runtimes"]) == {"kiln", "onnxruntime"}
    assert all(10 < timing["sqnr_db"] < 70 for timing in data["runtimes"].values())
    assert "mnn is not in the table: no int8" in result.stdout


def test_remarks_give_the_ratio_and_the_reasons():
    runtimes = {"kiln": _timing(2.0), "torch": _timing(4.0)}
    lines = remarks(Report("m", "fp32", 2, "A CPU", runtimes, failed={"mnn": "not installed: MNN"}))
    assert lines[0] == "Kiln takes 0.50 times as long as the best peer, torch."
    assert lines[-1] == "mnn is not in the table: not installed: MNN"


def test_no_peer_is_named_where_none_was_asked_for():
    assert not any(
        "peer" in line for line in remarks(Report("m", "fp32", 2, "A CPU", {"kiln": _timing(2.0)}))
    )


@pytest.mark.parametrize(
    ("against", "layers", "peers"),
    [
        (None, False, PEERS),
        (None, True, ()),
        ("", False, ()),
        ("torch, ncnn,torch", True, ("torch", "ncnn")),
    ],
)
def test_with_layers_peers_take_part_if_they_are_named(against, layers, peers):
    assert _peers(against, layers) == peers


def test_layers_are_shown_and_written_down(tmp_path, bench):
    path = tmp_path / "result.json"
    words = ("tests.deploy.tiny_model:convolution", "--layers", "--threads", "1", "--runs", "3")
    result = bench("bench", *words, "--json", str(path))
    assert result.returncode == 0, result.stderr
    data = json.loads(path.read_text())
    assert set(data["runtimes"]) == {"kiln"}
    profile = data["layers"]
    assert profile["runs"] == 3
    assert profile["peak"]["threads"] == 1
    assert {"conv2d", "matmul"} <= {layer["rule"] for layer in profile["layers"]}
    for layer in profile["layers"]:
        assert layer["kernel"] in result.stdout
    assert "all else" in result.stdout


def _layer(kernel, ms, least_ms, flops=1e6):
    size = None if flops is None else 4000
    return LayerTime(kernel, (1, 4, 8), "conv2d", 2, ms, ms / 4.0, flops, size, least_ms)


def _profile():
    layers = (_layer("slow_one", 3.0, 0.3), _layer("unknown[n]", 1.0, 0.0, flops=None))
    return Profile(5, 5.0, 0.25, 7, Peak(2, 200.0, 30.0), layers)


def test_the_layers_are_a_table():
    from rich.console import Console

    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(layer_table(_profile()))
    lines = [line.split() for line in console.export_text().splitlines()]
    first = ["3.000", "75.0%", "2", "0.3", "0.0", "10%", "2.700", "conv2d", "slow_one", "1x4x8"]
    assert first in lines
    assert ["1.000", "25.0%", "2", "1.000", "conv2d", "unknown[n]", "1x4x8"] in lines
    assert lines.index(first) == len(lines) - 3


def test_the_sums_are_sentences():
    taken, peak = totals(_profile())
    assert "takes 5.000 ms, its kernels 4.000 ms (80.0%)" in taken
    assert "virtual machine 1.000 ms (20.0%)" in taken
    assert "7 calls of vm.builtin.* 0.250 ms (5.0%)" in taken
    assert "200 GFLOPS and 30.0 GB/s, measured with 2 threads" in peak
