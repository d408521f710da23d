"""Kinds of bundle: ahead of time, for TVM's runtime, C; and what the command line makes of them."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import compiler
from compiler.bundle import read
from compiler.deploy import load
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
