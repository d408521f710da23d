"""int8 and bf16: peers quantize by their own tools with the same samples, and are judged by SQNR."""

import json
import os

import numpy as np
import pytest

from compiler.deploy import benchmark as bench
from compiler.deploy.benchmark import Plan, benchmark
from compiler.deploy.benchmark_accuracy import Accuracy
from compiler.deploy.benchmark_process import WorkerError, WorkerProcess
from compiler.deploy.benchmark_worker import Worker
from compiler.deploy.benchmark_workload import prepare
from compiler.deploy.peers import KILN, RUNTIMES
from compiler.deploy.peers.session import Session, Workload
from compiler.support.errors import InputError, ModelError, UsageError
from compiler.target_detect import this_machine
from tests.conftest import needs

SAMPLES = "tests.deploy.tiny_model:samples"


def _workload(folder, precision, factory="convolution", calibrate=None) -> Workload:
    source = f"tests.deploy.tiny_model:{factory}"
    workload = Workload(folder, source, 1, precision, calibrate=calibrate)
    return prepare(workload, {"onnx", "torchscript"})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Return a function that prepares a model for a precision once."""
    made: dict[tuple[str, str], Workload] = {}

    def get(precision: str, factory: str = "convolution") -> Workload:
        if (precision, factory) not in made:
            data = SAMPLES if factory == "convolution" else None
            folder = tmp_path_factory.mktemp("workload")
            made[precision, factory] = _workload(folder, precision, factory, data)
        return made[precision, factory]

    return get


def _build(name: str, workload: Workload) -> dict:
    with WorkerProcess(name, workload.folder, 1) as worker:
        built = worker.ask({"do": "build"}, 300)
        assert len(worker.ask({"do": "run", "count": 2}, 60)["times_ms"]) == 2
    return built


def test_samples_are_the_users_and_the_first_is_measured(prepared):
    workload = prepared("int8")
    pairs = list(workload.samples())
    assert len(pairs) == 4
    np.testing.assert_array_equal(workload.arrays()[0], pairs[0][0][0])
    np.testing.assert_array_equal(workload.reference()[0], pairs[0][1][0])
    assert not np.array_equal(pairs[0][1][0], pairs[1][1][0])
    assert workload.data.origin == f"'{SAMPLES}'"
    assert (workload.data.batches, workload.data.is_random) == (4, False)
    assert Workload.open(workload.folder) == workload


def test_without_data_random_numbers_are_used_and_the_report_says_so(tmp_path):
    workload = _workload(tmp_path, "int8")
    assert len(list(workload.samples())) == 8
    assert workload.data.is_random
    assert any("random" in note for note in bench._notes(workload))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_floats_are_judged_by_the_example_for_want_of_data(precision, tmp_path):
    workload = _workload(tmp_path, precision)
    ((inputs, outputs),) = workload.samples()
    np.testing.assert_array_equal(inputs[0], workload.arrays()[0])
    np.testing.assert_array_equal(outputs[0], workload.reference()[0])
    assert workload.data is None


def test_data_that_does_not_fit_is_an_error(tmp_path):
    np.savez(tmp_path / "data.npz", input=np.zeros((2, 3, 9, 9), np.float32))
    with pytest.raises(InputError, match="3x8x8"):
        _workload(tmp_path, "int8", calibrate=str(tmp_path / "data.npz"))
    workload = Workload(tmp_path, "tests.deploy.tiny_model:convolution", 1, "int8", calibrate="nowhere")
    with pytest.raises(ModelError, match="cannot find the calibration data"):
        bench._prepare(workload, ())


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "inductor"])
def test_peers_quantize_by_their_own_tools(name, prepared):
    needs("onnxruntime", "openvino", "nncf", "torchao", why="make setup")
    needs("g++", why="torch.compile needs a C++ compiler")
    built = _build(name, prepared("int8"))
    assert {s: r["failed"] for s, r in built["settings"].items() if "failed" in r} == {}
    # Not so good that it must have stayed in float.
    assert 20 < built["accuracy"]["sqnr_db"] < 60
    assert built["setting"] in built["settings"]


def test_openvino_tries_nncf_and_the_same_file_as_onnx_runtime(prepared):
    needs("onnxruntime", "openvino", "nncf", why="make setup")
    settings = _build("openvino", prepared("int8"))["settings"]
    kinds = {setting.partition(", rest")[0] for setting in settings}
    assert kinds == {"NNCF, performance", "NNCF, mixed", "ONNX Runtime's static QDQ"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "onnxruntime",
            {"static QDQ, per channel", "dynamic, per channel", "transformer optimizer, dynamic"},
        ),
        ("openvino", {"NNCF, transformer, rest f32", "ONNX Runtime's static QDQ, rest f32"}),
    ],
)
def test_attention_is_quantized_as_transformers_are(name, expected, prepared):
    needs("onnxruntime", "openvino", "nncf", why="make setup")
    settings = _build(name, prepared("int8", "attention"))["settings"]
    assert expected <= set(settings)
    assert not any("failed" in result for result in settings.values())


def test_nncf_tells_nobody(tmp_path, monkeypatch):
    needs("openvino", "nncf", "onnxruntime", why="make setup")
    package = tmp_path / "openvino_telemetry"
    package.mkdir()
    called = tmp_path / "called"
    (package / "__init__.py").write_text(
        "class Telemetry:\n    def __init__(self, *args, **kwargs):\n"
        f"        open({str(called)!r}, 'w').close()\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "work").mkdir()
    _build("openvino", _workload(tmp_path / "work", "int8", calibrate=SAMPLES))
    assert not called.exists()


@pytest.mark.parametrize("name", ["torch", "inductor", "openvino", "ncnn"])
def test_peers_compute_in_bfloat16(name, prepared):
    needs("openvino", "ncnn", "pnnx", why="make setup")
    needs("g++", why="torch.compile needs a C++ compiler")
    if name == "openvino" and not (this_machine().features or bench._BF16) & bench._BF16:
        with pytest.raises(WorkerError, match="lacks bfloat16"):
            _build(name, prepared("bf16"))
        return
    built = _build(name, prepared("bf16"))
    # A mantissa of 8 bits; float32 would be above 100 dB.
    assert 30 < built["accuracy"]["sqnr_db"] < 75


@pytest.mark.parametrize(
    ("accuracy", "precision", "right"),
    [
        (Accuracy(1.0, 1e-4, 80.0), "fp32", True),
        (Accuracy(1.0, 1e-2, 80.0), "fp32", False),
        (Accuracy(1.0, 0.5, 10.5), "int8", True),
        (Accuracy(1.0, 0.5, 9.5), "int8", False),
        (Accuracy(1.0, 0.5, 19.5), "bf16", False),
        (Accuracy(float("inf"), float("inf"), float("inf")), "int8", False),
        (Accuracy(0.0, 0.0), "int8", True),
        (Accuracy(1.0, 0.5), "int8", False),
    ],
)
def test_what_is_wrong_depends_on_the_precision(accuracy, precision, right):
    assert accuracy.is_right(precision) == right


class _Fixed(Session):
    """Gives the reference, off by a factor."""

    def __init__(self, workload, factor):
        self._workload, self._factor = workload, factor
        self.feed(workload.arrays())

    def feed(self, arrays):
        for inputs, outputs in self._workload.samples():
            if np.array_equal(inputs[0], arrays[0]):
                self._outputs = [output * self._factor for output in outputs]

    def run(self):
        return self._outputs

    def outputs(self):
        return self._outputs


def test_the_fastest_setting_that_is_right_counts(prepared, monkeypatch):
    from compiler.deploy import benchmark_worker

    workload = prepared("int8")
    times = {2.0: 1.0, 1.01: 3.0, 1.001: 5.0}
    monkeypatch.setattr(benchmark_worker, "_trial_ms", lambda session: times[session._factor])

    def fail():
        raise RuntimeError("no such kernel")

    made = {str(factor): lambda factor=factor: _Fixed(workload, factor) for factor in times}
    best, settings = Worker("torch", workload.folder)._best({**made, "other": fail})
    assert best.setting == "1.01"
    assert settings["2.0"] == {"ms": 1.0, "sqnr_db": pytest.approx(0, abs=0.1), "wrong": True}
    assert settings["1.01"]["sqnr_db"] == pytest.approx(40, abs=0.1)
    assert settings["other"] == {"failed": "RuntimeError: no such kernel"}


def test_peers_are_measured_where_kiln_cannot_and_the_report_says_why():
    def compile_bundle(source, bundle, samples):
        assert [len(sample) for sample in samples] == [1] * 4
        raise UsageError("not yet")

    plan = Plan(
        "tests.deploy.tiny_model:convolution", ("torch", "mnn"), precision="bf16", runs=2, calibrate=SAMPLES
    )
    report = benchmark(plan, compile_bundle)
    assert set(report.runtimes) == {"torch"}
    assert report.failed[KILN] == "not yet"
    assert report.failed["mnn"] == f"no bf16: {RUNTIMES['mnn'].lacks['bf16']}"
    assert (report.best_peer, report.ratio) == ("torch", None)
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["calibration"]["batches"] == 4
    assert len(data["calibration"]["sha256"]) == 64
    assert 30 < data["runtimes"]["torch"]["sqnr_db"] < 75


def test_without_peers_what_kiln_cannot_do_is_an_error():
    def compile_bundle(source, bundle, samples):
        raise UsageError("not yet")

    with pytest.raises(UsageError, match="not yet"):
        benchmark(Plan("tests.deploy.tiny_model:convolution", (), precision="bf16"), compile_bundle)
