"""The host's library: it runs, it is whole, and failing tools are said in one line."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from tvm import relax

from compiler.build import build
from compiler.build.toolchain import linker_for, run_tool
from compiler.frontend import load as import_model
from compiler.passes import optimize
from compiler.schedule import schedule
from compiler.support.errors import BuildError
from compiler.target import Toolchain
from compiler.target import load as load_target
from tests.build.networks import conv_net


def run(library, *inputs):
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
    return [np.asarray(out.numpy()) for out in machine["main"](*map(tvm.runtime.tensor, inputs))]


def with_toolchain(**words):
    return dataclasses.replace(load_target("host"), toolchain=Toolchain(**words))


def test_library_computes_what_pytorch_does(tmp_path):
    case = conv_net()
    built = case.build(load_target("host"), tmp_path)
    np.testing.assert_allclose(run(built.library, case.input)[0], case.output, rtol=1e-4, atol=1e-5)
    assert built.notes == ()
    assert [path.name for path in tmp_path.iterdir()] == ["model.so"]


def test_zig_links_the_host_too(tmp_path):
    target = dataclasses.replace(load_target("host"), name="elsewhere")
    assert "ziglang" in linker_for(target).command
    case = conv_net()
    built = case.build(target, tmp_path)
    np.testing.assert_allclose(run(built.library, case.input)[0], case.output, rtol=1e-4, atol=1e-5)


def test_rebuilding_leaves_a_loaded_library_alone(tmp_path):
    case, target = conv_net(), load_target("host")
    built = case.build(target, tmp_path)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(built.library)), tvm.cpu())
    inode = built.library.stat().st_ino
    assert case.build(target, tmp_path).library.stat().st_ino != inode
    again = machine["main"](tvm.runtime.tensor(case.input))[0].numpy()
    np.testing.assert_allclose(again, case.output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("forward", [lambda x: (x,), lambda x: (x.reshape(6), x)], ids=["same", "view"])
def test_network_without_arithmetic(tmp_path, forward):
    class Net(nn.Module):
        def forward(self, x):
            return forward(x)

    x, target = torch.randn(2, 3), load_target("host")
    mod = schedule(optimize(import_model(Net(), (x,)).mod, target)[0], target)[0]
    outputs = run(build(mod, target, tmp_path).library, x.numpy())
    for output, expected in zip(outputs, forward(x), strict=True):
        np.testing.assert_array_equal(output, expected.numpy())


def test_weights_are_in_the_library_once(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(1024, 1024))

        def forward(self, x):
            return x + self.weight

    x, target = torch.randn(1024, 1024), load_target("host")
    net = Net().eval()
    mod = schedule(optimize(import_model(net, (x,)).mod, target)[0], target)[0]
    built = build(mod, target, tmp_path)
    weights = net.weight.detach().numpy().tobytes()
    assert built.library.read_bytes().count(weights) == 1
    assert built.library.stat().st_size < len(weights) + 256 * 1024
    np.testing.assert_array_equal(run(built.library, x.numpy())[0], net(x).detach().numpy())


def test_failing_compiler_is_quoted(tmp_path):
    script = "import sys; print('noise\\nld: no space left'); sys.exit(3)"
    target = with_toolchain(compiler=(sys.executable, "-c", script))
    with pytest.raises(BuildError, match=r"-shared.* failed with exit code 3: noise \| ld: no space left"):
        conv_net().build(target, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_missing_compiler_is_named(tmp_path):
    with pytest.raises(BuildError, match=r"expected to run `no-such-cc .*No such file"):
        conv_net().build(with_toolchain(compiler=("no-such-cc",)), tmp_path)


def test_the_hosts_compiler_comes_from_cc(monkeypatch):
    monkeypatch.setenv("CC", "ccache my-cc")
    assert linker_for(load_target("host")).command == ("ccache", "my-cc")
    assert "ziglang" in linker_for(load_target("rpi4")).command


def test_zig_stands_in_where_the_host_has_no_compiler(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "ziglang" in linker_for(load_target("host")).command


def test_descriptor_names_compiler_and_flags():
    target = with_toolchain(compiler=("aarch64-linux-gnu-gcc",), flags=("-nostdlib", "-s"))
    linker = linker_for(target)
    assert (linker.command, linker.flags) == (("aarch64-linux-gnu-gcc",), ("-nostdlib", "-s"))
    assert linker.open_libc


def test_no_way_to_link_says_what_to_set():
    target = dataclasses.replace(load_target("rpi4"), toolchain=Toolchain())
    target = dataclasses.replace(target, triple="riscv64-linux-gnu")
    with pytest.raises(
        BuildError, match=r"no compiler links for 'rpi4'.*toolchain\.compiler or toolchain\.zig"
    ):
        linker_for(target)


def test_tools_work_in_a_cache_of_their_own(tmp_path):
    text = run_tool([sys.executable, "-c", "import os; print(os.environ['ZIG_LOCAL_CACHE_DIR'])"], tmp_path)
    assert text.strip() == str(tmp_path / "zig-cache")
