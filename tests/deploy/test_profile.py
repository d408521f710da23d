"""No time is asserted; that every call is seen once, and that the numbers fit one another, is."""

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

import compiler
from compiler.bundle import KernelInfo
from compiler.deploy import load
from compiler.deploy.peak import Peak
from compiler.deploy.profile import LayerTime, Profile, _Run, profile
from compiler.deploy.tensors import to_numpy

PEAK = Peak(threads=1, gflops=100.0, gb_per_s=20.0)
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import numpy as np, compiler
from compiler.deploy.peak import Peak
from compiler.deploy.profile import profile
session = compiler.load(sys.argv[1])
inputs = [np.zeros((1, 16, 8, 8), np.float32)]
print(len(profile(session, inputs, session.manifest.kernels, Peak(1, 1.0, 1.0), 1).layers))
"""


class _Twice(nn.Module):
    """The same layer twice, so that one kernel is called twice, and another once."""

    def __init__(self):
        super().__init__()
        self.same, self.last = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 32, 1)

    def forward(self, x):
        return self.last(self.same(self.same(x)))


@pytest.fixture(scope="module", params=["aot", "tvm"])
def bundle(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "twice.kiln"
    compiler.compile(_Twice().eval(), (torch.randn(1, 16, 8, 8),), output=path, threads=1, kind=request.param)
    return path


@pytest.fixture(scope="module")
def found(bundle):
    session = load(bundle)
    return profile(session, [np.ones((1, 16, 8, 8), np.float32)], session.manifest.kernels, PEAK, 3)


def _layer(ms=2.0, flops=1e8, size=1000, least_ms=1.0):
    return LayerTime("k", (1,), "conv2d", 1, ms, 1.0, flops, size, least_ms)


def test_operations_and_calls_are_those_of_the_layers(found):
    convolutions = {layer.shape[1]: layer for layer in found.layers if layer.rule == "conv2d"}
    lanes = next(iter(convolutions.values())).shape[-1]
    same, last = convolutions[16 // lanes], convolutions[32 // lanes]
    assert (same.calls, last.calls) == (2, 1)
    # The bias is one addition for each element of the output.
    assert same.flops == 2 * (2 * 16 * 16 * 8 * 8 * 3 * 3 + 16 * 8 * 8)
    assert last.flops == 2 * 16 * 32 * 8 * 8 + 32 * 8 * 8
    assert same.bytes == 2 * 4 * (16 * 8 * 8 + 16 * 16 * 3 * 3 + 16 + 16 * 8 * 8)


def test_every_call_is_in_one_row(bundle, found):
    session, names = load(bundle), []
    prepared = session.prepare([np.ones((1, 16, 8, 8), np.float32)])
    session.trace(prepared, lambda name, before, args: names.append(name) if before else None)
    kernels = [name for name in names if name in session.manifest.kernels]
    assert sum(layer.calls for layer in found.layers) == len(kernels)
    assert found.builtin_calls == sum(name.startswith("vm.builtin.") for name in names)
    assert {layer.kernel for layer in found.layers} == set(kernels)


def test_a_trace_computes_what_a_call_does_and_ends(bundle):
    session, calls = load(bundle), []
    image = np.ones((1, 16, 8, 8), np.float32)
    expected = session(image)
    seen = {}

    def watch(name, before, args):
        calls.append((name, before))
        if not before and name in session.manifest.kernels:
            seen["last"] = to_numpy(args[-1]).copy()

    session.trace(session.prepare([image]), watch)
    count = len(calls)
    assert [before for _, before in calls] == [True, False] * (count // 2)
    np.testing.assert_array_equal(np.sort(seen["last"].ravel()), np.sort(expected.ravel()))
    np.testing.assert_array_equal(session(image), expected)
    assert len(calls) == count


def test_an_error_of_the_watcher_ends_the_trace(bundle):
    session = load(bundle)
    image = np.ones((1, 16, 8, 8), np.float32)

    def watch(name, before, args):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        session.trace(session.prepare([image]), watch)
    session(image)


def test_shares_and_sums_fit_one_another(found):
    assert sum(layer.share for layer in found.layers) == pytest.approx(1.0)
    assert found.kernels_ms == pytest.approx(sum(layer.ms for layer in found.layers))
    assert found.overhead_ms == pytest.approx(found.total_ms - found.kernels_ms)
    lost = [layer.lost_ms for layer in found.layers]
    assert lost == sorted(lost, reverse=True)
    for layer in found.layers:
        assert layer.least_ms == pytest.approx(PEAK.least_ms(layer.flops, layer.bytes))


def test_what_a_row_says():
    layer = _layer()
    assert (layer.gflops, layer.of_peak, layer.lost_ms) == (50.0, 0.5, 1.0)
    assert layer.gb_per_s == pytest.approx(0.0005)
    unknown = _layer(flops=None, size=None, least_ms=0.0)
    assert (unknown.gflops, unknown.gb_per_s, unknown.of_peak, unknown.lost_ms) == (None, None, None, 2.0)
    never = _layer(ms=0.0)
    assert (never.gflops, never.gb_per_s, never.of_peak) == (None, None, None)


def test_the_time_of_a_call_excludes_the_watcher_and_calls_within(monkeypatch):
    from compiler.deploy import profile as module

    # A second passes at each look at the clock; the arguments take one before each call and one after.
    seconds = iter(range(100))
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(seconds))
    run = _Run({"kernel": KernelInfo(rule="r", flops=None, bytes=None)})
    for name in ("vm.builtin.first", "kernel", "kernel"):
        run.watch(name, True, ())
        run.watch(name, False, ())
    assert run.builtin.calls == 1
    assert run.layers["kernel", ()].calls == 2
    assert run.layers["kernel", ()].ms == 0.0


def test_a_profile_survives_the_way_between_processes(found):
    assert Profile.from_plain(json.loads(json.dumps(asdict(found)))) == found


def test_json_has_the_documented_keys(found):
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    totals = {"total_ms", "kernels_ms", "overhead_ms", "builtin_ms", "builtin_calls", "runs", "peak"}
    assert totals | {"layers"} == set(data)
    row = {"kernel", "shape", "rule", "calls", "ms", "share", "flops", "bytes", "least_ms"}
    assert row | {"gflops", "gb_per_s", "of_peak", "lost_ms"} == set(data["layers"][0])


def test_symbolic_shapes_have_times_and_no_operations(tmp_path):
    path = tmp_path / "symbolic.kiln"
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval()
    compiler.compile(module, (torch.randn(4, 8),), dynamic={"input": {0: "N"}}, output=path, threads=1)
    session = load(path)
    found = profile(session, [np.ones((5, 8), np.float32)], session.manifest.kernels, PEAK, 2)
    assert found.layers
    for layer in found.layers:
        assert (layer.flops, layer.bytes, layer.of_peak) == (None, None, None)
        assert layer.shape[0] == 5


def test_torch_is_not_needed(bundle):
    command = [sys.executable, "-c", WITHOUT_TORCH, str(bundle)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= 2
