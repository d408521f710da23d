"""Kinds of bundle: ahead of time, for TVM's runtime, C; and what the command line makes of them."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import compiler
from compiler.bundle import read
from compiler.deploy import load
from compiler.deploy.install import aot_of
from compiler.driver_diff import diff
from compiler.support.errors import BuildError, BundleError, KilnError, UsageError

PAGE = Path(__file__).parent.parent / "docs" / "deploy.md"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 20, 3), nn.Linear(20 * 36, 4)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).flatten(1)).softmax(-1)


def dynamic(least=1, most=16):
    bounds = {"min": least, "max": most} if most else {"min": least}
    dims = {0: torch.export.Dim("batch", **bounds)}
    return torch.export.export(Net().eval(), (torch.randn(2, 3, 8, 8),), dynamic_shapes=(dims,))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "net.py").write_text(
        "import torch\nfrom tests.test_driver_bundle import Net\n\n\n"
        "def make():\n    torch.manual_seed(0)\n    return Net().eval(), (torch.zeros(1, 3, 8, 8),)\n"
    )
    compiler.compile(f"{folder}/net.py:make", output=folder / "net.kiln")
    return folder / "net.kiln"


def test_a_cpu_gets_a_library_that_needs_nothing(bundle):
    manifest = read(bundle).manifest
    assert manifest.aot.name == "make"
    assert set(manifest.aot.files) == {"libmake.so", "libmake.a", "make.h", "make-run", "make.weights"}
    assert set(manifest.aot.files) <= set(manifest.parts)
    assert manifest.aot.arena_bytes >= manifest.aot.arena_least > 0
    assert any(step.layer.endswith("relu") for step in manifest.aot.steps)
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8), np.float32)
    session = load(bundle, threads=1)
    torch.manual_seed(0)
    np.testing.assert_allclose(session(x), Net().eval()(torch.from_numpy(x)).detach().numpy(), rtol=1e-4)


def test_a_batch_up_to_its_greatest(tmp_path):
    program = dynamic()
    model = compiler.compile(program, kind="aot", name="net", output=tmp_path / "net.kiln")
    session = load(tmp_path / "net.kiln")
    for batch in (1, 2, 7, 16):
        x = torch.randn(batch, 3, 8, 8)
        wanted = program.module()(x)
        for run in (model, session):
            got = run(x)
            assert got.shape == (batch, 4)
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
    with pytest.raises(KilnError, match="from 1 to 16"):
        model(torch.randn(17, 3, 8, 8))


def test_the_runner_takes_the_batch_of_its_files(tmp_path, kiln):
    program = dynamic()
    compiler.compile(program, kind="aot", name="net", output=tmp_path / "net.kiln")
    assert kiln("unpack", tmp_path / "net.kiln", tmp_path / "out")[0] == 0
    runner = tmp_path / "out" / "net-run"
    assert "right" in subprocess.run([runner], capture_output=True, text=True, check=True).stdout
    for batch in (1, 5):
        x = torch.randn(batch, 3, 8, 8)
        np.save(tmp_path / "x.npy", x.numpy())
        words = ["--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy"]
        subprocess.run([runner, *words], check=True)
        wanted = program.module()(x).detach().numpy()
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), wanted, rtol=1e-4, atol=1e-6)
    np.save(tmp_path / "x.npy", np.zeros((17, 3, 8, 8), np.float32))
    done = subprocess.run(
        [runner, "--input", tmp_path / "x.npy"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert re.search(r"expected a size '.*' from 1 to 16, got 17", done.stderr)


def test_what_has_no_bounds_is_for_tvm(tmp_path):
    program = dynamic(most=None)
    model = compiler.compile(program, output=tmp_path / "net.kiln", check=False)
    assert model.manifest.aot is None
    assert "model.so" in read(tmp_path / "net.kiln").manifest.parts
    with pytest.raises(BuildError, match=r"no library ahead of time .* has no greatest value"):
        compiler.compile(program, kind="aot", check=False)


def test_what_would_not_fit_the_device_is_for_tvm():
    program = dynamic(most=1 << 40)
    assert compiler.compile(program, check=False).manifest.aot is None
    with pytest.raises(BuildError, match=r"it would take .* GB of memory at its greatest sizes"):
        compiler.compile(program, kind="aot", check=False)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"kind": "other"}, "expected the kind of bundle auto or aot or tvm or c-source, got 'other'"),
        ({"kind": "tvm", "name": "x"}, "are for libraries ahead of time"),
        ({"name": "a-b"}, "expected a name for C such as 'a_b', got 'a-b'"),
        ({"weights": "elsewhere"}, "expected weights in a file or inside, got 'elsewhere'"),
        ({"kind": "aot", "target": "apple-m1-cpu"}, "take --kind tvm"),
        ({"with_runtime": True}, "needs no runtime"),
    ],
)
def test_bad_wishes_are_refused(options, line):
    with pytest.raises(UsageError, match=line):
        compiler.compile(nn.Linear(4, 4), (torch.randn(1, 4),), check=False, **options)


def test_there_is_no_runtime_of_tvm_for_every_board():
    with pytest.raises(BuildError, match=r"TVM for x86_64 and aarch64 under Linux, and 'rpi2' is arm"):
        compiler.compile(
            nn.Linear(4, 4), (torch.randn(1, 4),), check=False, kind="tvm", target="rpi2", with_runtime=True
        )


def test_c_is_checked_by_a_build_for_this_machine(tmp_path, kiln):
    path = tmp_path / "net.kiln"
    model = compiler.compile(
        Net().eval(), (torch.randn(1, 3, 8, 8),), kind="c-source", name="net", output=path
    )
    assert model.session is None
    assert model.manifest.check.ran == "host build"
    with pytest.raises(BundleError, match="it holds C"):
        load(path)
    assert kiln("unpack", path, tmp_path / "c")[0] == 0
    subprocess.run(["make", "-s", "-C", tmp_path / "c"], check=True)
    done = subprocess.run([tmp_path / "c" / "net-run"], capture_output=True, text=True, check=True)
    assert ": right, off by " in done.stdout


def test_memory_step_by_step(bundle, kiln):
    code, out, err = kiln("info", bundle, "--memory")
    assert code == 0, err
    for word in ("arena", "weights", "scratch", "alive KiB", "could save"):
        assert word in out


def test_layers_are_compared_with_pytorch(bundle, kiln):
    code, out, err = kiln("diff", bundle)
    assert code == 0, err
    assert "head linear" in out
    assert "layers are within 0.001" in out


@pytest.fixture(scope="module")
def quantized(bundle):
    path = bundle.parent / "int8.kiln"
    compiler.compile(f"{bundle.parent}/net.py:make", quantize="int8", output=path)
    return path


def test_layers_in_integers_are_compared_by_what_they_stand_for(quantized, monkeypatch):
    found = diff(quantized)
    assert [each.layer for each in found if each.levels] == ["relu", "view"]
    assert all(each.error < 0.02 for each in found)
    step = found[0].step
    levels = read(quantized).manifest.aot.steps[step].levels

    def other(bundle):
        aot = aot_of(bundle)
        steps = [replace(each, levels=replace(levels, scale=levels.scale * 1.5)) for each in aot.steps]
        return replace(aot, steps=tuple(steps))

    monkeypatch.setattr("compiler.driver_diff.aot_of", other)
    assert diff(quantized)[0].error > 0.3


def test_quantized_layers_on_the_command_line(quantized, kiln):
    code, out, err = kiln("diff", quantized)
    assert code == 0, err
    assert "levels" in out
    assert "layers are within 0.1" in out


def byte_network(path):
    """Write a network that takes and gives bytes as ONNX."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.UINT8, [1, 3, 4, 4]) for name in "xy")
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "half", "middle"], ["real"]),
        helper.make_node("Relu", ["real"], ["positive"]),
        helper.make_node("QuantizeLinear", ["positive", "quarter", "none"], ["y"]),
    ]
    numbers = {"half": np.float32(0.5), "quarter": np.float32(0.25)}
    numbers |= {"middle": np.uint8(128), "none": np.uint8(0)}
    constants = [numpy_helper.from_array(np.array(value), name) for name, value in numbers.items()]
    graph = helper.make_graph(nodes, "bytes", [x], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_the_header_says_what_bytes_stand_for(tmp_path, kiln):
    byte_network(tmp_path / "bytes.onnx")
    path = tmp_path / "bytes.kiln"
    compiler.compile(str(tmp_path / "bytes.onnx"), output=path, name="net")
    assert kiln("unpack", path, tmp_path)[0] == 0
    header = (tmp_path / "net.h").read_text()
    assert "x: uint8 [1, 3, 4, 4], 48 bytes; each x is 0.5 * (x - 128)" in header
    (tmp_path / "main.c").write_text(
        '#include "net.h"\n#include <stdio.h>\nint main(void) {\n'
        '  printf("%g %d %g", net_inputs[0].scale, net_inputs[0].zero_point, net_outputs[0].scale);\n}\n'
    )
    words = ["cc", "main.c", "-I.", "libnet.a", "-lm", "-pthread", "-o", "main"]
    subprocess.run(words, cwd=tmp_path, check=True)
    said = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout
    assert said == "0.5 128 0.25"
    code, out, _ = kiln("info", path)
    assert code == 0
    assert "uint8: 0.25 * x" in out


def test_the_first_layer_that_differs_is_named(bundle, tmp_path, kiln):
    other = tmp_path / "other.py"
    text = (
        (bundle.parent / "net.py")
        .read_text()
        .replace("return Net().eval(),", "net = Net().eval()\n    CHANGE,")
    )
    other.write_text(text.replace("CHANGE", "net.head.weight.data[0] += 1\n    return net"))
    code, _, err = kiln("diff", bundle, "--model", f"{other}:make")
    assert code == 2
    assert re.search(r"head linear \(step \d+, \w+\) is the first layer beyond the tolerance", err)
    code, _, err = kiln("diff", bundle, "--model", "torchvision.models:squeezenet1_1")
    assert code == 2
    assert "give the model that it was made from" in err


def test_the_c_of_the_page_works(tmp_path, kiln):
    text = re.search(r"```c\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000)).eval()
    path = tmp_path / "net.kiln"
    compiler.compile(net, (torch.randn(1, 3, 224, 224),), name="resnet18", output=path, weights="inside")
    assert kiln("unpack", path, tmp_path)[0] == 0
    (tmp_path / "app.c").write_text(text)
    words = ["cc", "app.c", "-I.", "-Wall", "-Werror", "libresnet18.a", "-lm", "-pthread", "-o", "app"]
    subprocess.run(words, cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "app"], check=True)
