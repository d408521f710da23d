"""Failures of torch.export become one message that names the user's line."""

import pytest
import torch
from torch import nn
from torch.ao.quantization import FakeQuantize

from compiler.frontend import load
from compiler.support.errors import ModelError, UsageError
from tests.passes.graphs import run


class Deciding(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class Raising(nn.Module):
    def forward(self, x):
        raise ValueError("no good")


class Leaving(nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.numpy() * 2)


class Fixed(nn.Module):
    def forward(self, x):
        return x.view(2, -1)


class Box:
    def __init__(self, value):
        self.value = value


class Boxing(nn.Module):
    def forward(self, x):
        return Box(x * 2)


class Sized(nn.Module):
    def forward(self, x):
        return x, x.shape[0]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            Deciding(),
            r"decides on the values of a tensor at .*export.py:\d+ \(`if x.sum\(\) > 0:`\).*torch\.where",
        ),
        (
            Raising(),
            r"forward itself fails on inputs \(2x4 float32\): ValueError: no good at .*test_export.py:\d+",
        ),
        (Leaving(), r"torch.export cannot trace Leaving at .*test_export.py:\d+"),
    ],
)
def test_one_line_names_the_users_line(module, message, capfd):
    with pytest.raises(ModelError, match=message) as caught:
        load(module, torch.randn(2, 4))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_dimension_that_the_model_fixes():
    with pytest.raises(
        ModelError, match=r"cannot vary as asked: .*specialized.*\(2\); what the model allows: N = 2"
    ):
        load(Fixed(), torch.randn(2, 4), dynamic={"x": {0: "N"}})


def test_an_output_of_an_unknown_kind():
    with pytest.raises(
        ModelError, match=r"gives a tests\.frontend\.test_export\.Box.*return tensors, tuples or dicts"
    ):
        load(Boxing(), torch.randn(2))


def test_a_size_is_no_output():
    with pytest.raises(ModelError, match="outputs must be tensors"):
        load(Sized(), torch.randn(2, 4), dynamic={"x": {0: "N"}})


def test_wrong_example_shapes():
    with pytest.raises(ModelError, match="forward itself fails on inputs"):
        load(nn.Linear(4, 2), torch.randn(1, 5))


def test_examples_that_do_not_bind():
    with pytest.raises(UsageError, match=r"do not fit Linear\.forward"):
        load(nn.Linear(4, 2), (torch.randn(1, 4), torch.randn(1, 4)))


def test_an_unknown_keyword():
    with pytest.raises(UsageError, match=r"has no input 'inptu'; did you mean 'input'\?"):
        load(nn.Linear(4, 2), {"inptu": torch.randn(1, 4)})


def test_fake_quantize_modules_are_frozen_not_asked_for_their_switches():
    """A model after quantization-aware training compiles as it is; its own observers are left alone."""
    fake = FakeQuantize(quant_min=-128, quant_max=127, dtype=torch.qint8)
    model = nn.Sequential(fake, nn.Linear(4, 3))
    x = torch.linspace(-2, 2, 8).reshape(2, 4)
    model(x)
    model.eval()
    loaded = load(model, (x,))
    assert isinstance(model[0], FakeQuantize)
    torch.testing.assert_close(torch.from_numpy(run(loaded.mod, x.numpy())), model(x))
