import warnings

import pytest
import torch
from torch import nn

from compiler.frontend import load
from compiler.support.errors import ModelError, UsageError
from tests.frontend.helpers import assert_imported


@pytest.fixture
def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()


def script(module, *examples):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(module, examples) if examples else torch.jit.script(module)


@pytest.mark.parametrize("suffix", [".pt", ".ts", ".pth"])
def test_a_file_is_converted(tmp_path, network, suffix):
    path = tmp_path / f"net{suffix}"
    script(network, torch.randn(1, 3, 8, 8)).save(str(path))
    model = load(path, inputs=["input=1x3x8x8"])
    assert model.signature.inputs[0].shape == (1, 3, 8, 8)
    assert model.signature.inputs[0].name == "input"
    assert model.signature.outputs[0].shape == (1, 4, 6, 6)
    assert_imported(model)


def test_a_scripted_module_in_memory(network):
    assert_imported(load(script(network), torch.randn(2, 3, 8, 8)))


def test_unknown_inputs_and_missing_examples(network):
    scripted = script(network)
    with pytest.raises(UsageError, match="has no input 'x'"):
        load(scripted, inputs=["x=1x3x8x8"])
    with pytest.raises(UsageError, match="no example inputs"):
        load(scripted)
    with pytest.raises(UsageError, match="fixed shapes"):
        load(scripted, inputs=["input=Nx3x8x8"])


def test_what_torch_cannot_convert():
    class Looping(nn.Module):
        def forward(self, x):
            while bool(x.sum() > 0):
                x = x - 1
            return x

    with pytest.raises(ModelError, match="torch cannot convert the TorchScript"):
        load(script(Looping()), torch.randn(4))


class Explosive(nn.Module):
    def __reduce__(self):
        return exec, ("raise SystemExit('this code must not run')",)


def test_a_pickled_module_is_refused_without_running_it(tmp_path):
    path = tmp_path / "module.pt"
    torch.save(Explosive(), path)
    with pytest.raises(
        ModelError, match=r"pickled Python object.*could run any code.*package\.module:factory"
    ):
        load(path, torch.randn(1))


def test_the_old_format_is_refused_too(tmp_path):
    path = tmp_path / "module.pth"
    torch.save(Explosive(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match="could run any code"):
        load(path, torch.randn(1))


def test_weights_alone_are_no_model(tmp_path, network):
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    with pytest.raises(ModelError, match=r"holds weights only \(7 tensors\)"):
        load(path)


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04 cut"])
def test_damaged_files(tmp_path, data):
    path = tmp_path / "bad.pt"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"bad\.pt"):
        load(path)
