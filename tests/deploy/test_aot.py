"""An ahead-of-time library from Python: numpy in, numpy out, nothing else loaded."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from compiler.deploy.aot import AotFiles, AotModel, AotTensor
from compiler.support.errors import BuildError, InputError
from tests.build.aot_nets import branches, built


@pytest.fixture(scope="module")
def net():
    return branches()


@pytest.fixture(scope="module")
def library(net, tmp_path_factory):
    return built(net, (torch.randn(1, 3, 13, 11),), tmp_path_factory.mktemp("aot")).shared


def opened(library, threads=1, name="net"):
    return AotModel(AotFiles(library, name), threads)


def test_it_says_what_it_takes_and_computes_it(net, library):
    x = np.random.default_rng(0).standard_normal((1, 3, 13, 11), np.float32)
    with opened(library, 2) as model:
        (given,) = model.inputs
        assert (given.dtype, given.shape) == ("float32", x.shape)
        assert [each.shape for each in model.outputs] == [(1, 10), (1, 16, 13, 11)]
        assert model.threads == 2
        with torch.no_grad():
            wanted = [each.numpy() for each in net(torch.from_numpy(x))]
        told = []
        got = model.run([x], lambda step, made: told.append((step, [each.copy() for each in made])))
        for arrays in (got, model(x), model(np.asfortranarray(x))):
            for one, other in zip(arrays, wanted, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        assert [step for step, _ in told] == list(range(len(model.steps)))
        assert len(model.steps) > 3
        assert any("conv2d" in step.kernel for step in model.steps)
        for step, made in told:
            assert [each.shape for each in model.steps[step].outputs] == [each.shape for each in made]
        assert any(np.array_equal(made[0], got[0]) for _, made in told)


@pytest.mark.parametrize(
    ("inputs", "line"),
    [
        ([], "expected 1 inputs, got 0"),
        (
            [np.zeros((1, 3, 13, 12), np.float32)],
            r"expected float32 \(1, 3, 13, 11\), got float32 \(1, 3, 13, 12\)",
        ),
        ([np.zeros((1, 3, 13, 11))], "got float64"),
        ([3], "got int"),
    ],
)
def test_what_does_not_fit_is_refused(library, inputs, line):
    with opened(library) as model, pytest.raises(InputError, match=line):
        model(*inputs)


def test_a_closed_model_runs_no_more(library):
    model = opened(library)
    model.close()
    model.close()
    with pytest.raises(InputError, match="closed"):
        model(np.zeros((1, 3, 13, 11), np.float32))


def test_other_files_and_names_are_told(library, tmp_path):
    with pytest.raises(BuildError, match="cannot be loaded as a library of the model 'other'"):
        opened(library, name="other")
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(BuildError, match="cannot be loaded"):
        opened(tmp_path / "text.so")
    with pytest.raises(BuildError, match="expected 1 to 64 threads, got 900"):
        opened(library, 900)


def test_weights_that_are_not_the_models_are_refused(library, tmp_path):
    weights = (library.parent / "net.weights").read_bytes()
    for name, data, line in (
        ("none", None, "No such file"),
        ("short", weights[:-1], f"expected {len(weights)} bytes, got {len(weights) - 1}"),
        ("other", weights[:-32] + bytes(32), "not those of this model: their SHA-256 differs"),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(BuildError, match=line):
            AotModel(AotFiles(library, "net", tmp_path / name))


def test_files_may_go_when_it_is_loaded(net, library, tmp_path):
    names = ("libnet.so", "net.weights")
    for name in names:
        shutil.copy(library.parent / name, tmp_path / name)
    model = opened(tmp_path / "libnet.so")
    for name in names:
        (tmp_path / name).unlink()
    x = np.ones((1, 3, 13, 11), np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(model(x)[0], net(torch.from_numpy(x))[0].numpy(), rtol=1e-4, atol=1e-5)


def test_memory_of_tensors_is_aligned():
    assert AotTensor("x", "bfloat16", (3, 5)).empty().ctypes.data % 64 == 0


def test_neither_tvm_nor_torch_is_loaded():
    code = "import sys, compiler.deploy.aot; print([m for m in ('torch', 'tvm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
