import importlib.metadata
import warnings

import pytest
import torch
from torch import nn

from compiler import torch_backend
from compiler.support.errors import KilnError, KilnWarning
from compiler.torch_backend import kiln
from tests import models
from tests.conftest import absent


@pytest.fixture
def compilations(monkeypatch):
    """Count how often Kiln compiles."""
    torch.compiler.reset()
    count = []
    compile_graph = torch_backend._Graph._compile

    def counted(self, args):
        count.append(1)
        compile_graph(self, args)

    monkeypatch.setattr(torch_backend._Graph, "_compile", counted)
    with warnings.catch_warnings():
        warnings.simplefilter("error", KilnWarning)
        yield count
    torch.compiler.reset()


def same(compiled, module, *inputs, **named):
    torch.testing.assert_close(compiled(*inputs, **named), module(*inputs, **named), rtol=1e-4, atol=1e-5)


def test_the_backend_is_registered():
    points = importlib.metadata.entry_points(group="torch_dynamo_backends")
    found = [point for point in points if point.name == "kiln"]
    if not found:
        absent("this environment was installed before the entry point existed; run pip install -e .")
    assert found[0].load() is kiln


@torch.no_grad()
def test_a_model_is_compiled_once(compilations):
    module, (image,) = models.tiny()
    compiled = torch.compile(module, backend=kiln)
    for _ in range(3):
        same(compiled, module, torch.randn_like(image))
    assert len(compilations) == 1


@torch.no_grad()
def test_weights_that_change_in_place_count(compilations):
    module, (image,) = models.tiny()
    compiled = torch.compile(module, backend=kiln)
    same(compiled, module, image)
    module.head.weight.mul_(3)
    same(compiled, module, image)
    module.load_state_dict({name: torch.ones_like(value) for name, value in module.state_dict().items()})
    same(compiled, module, image)
    module.features[1].running_mean.add_(1)
    same(compiled, module, image)
    assert len(compilations) == 4


@torch.no_grad()
def test_a_batch_that_varies(compilations):
    module, _ = models.tiny()
    compiled = torch.compile(module, backend=kiln, dynamic=True)
    for batch in (4, 3, 6):
        same(compiled, module, torch.randn(batch, 3, 16, 16))
    assert len(compilations) == 1


@torch.no_grad()
def test_sizes_in_the_computation(compilations):
    def scale(x, y):
        return (x @ y).relu() * x.shape[0] + y.shape[0]

    compiled = torch.compile(scale, backend=kiln, dynamic=True)
    for n, m in ((4, 5), (3, 7)):
        same(compiled, scale, torch.randn(n, m), torch.randn(m, n))
    assert len(compilations) == 1


def test_nested_outputs_by_name_in_inference_mode(compilations):
    module, inputs = models.nested()
    with torch.inference_mode():
        same(torch.compile(module, backend=kiln), module, **inputs)


def test_training_stays_in_pytorch(compilations):
    module, (image,) = models.tiny()
    compiled = torch.compile(module, backend=kiln)
    with pytest.warns(KilnWarning, match=r"running in PyTorch: gradients .* torch.no_grad"):
        compiled(image).sum().backward()
    assert module.head.weight.grad is not None
    assert not compilations


class Svd(nn.Module):
    def forward(self, x):
        return torch.linalg.svd(x).S


@torch.no_grad()
def test_what_kiln_cannot_compile_runs_in_pytorch(compilations):
    compiled = torch.compile(Svd(), backend=kiln)
    with pytest.warns(KilnWarning, match="cannot be imported"):
        result = compiled(torch.eye(3))
    assert torch.equal(result, torch.ones(3))
    compiled(torch.eye(3))  # silent the second time, and not tried again
    assert len(compilations) == 1


@torch.no_grad()
def test_options(compilations):
    module, (image,) = models.tiny()
    same(torch.compile(module, backend=kiln, options={"threads": 1, "check": False}), module, image)
    torch.compiler.reset()
    with pytest.raises(KilnError, match="cannot be imported"):
        torch.compile(Svd(), backend=kiln, options={"fallback": False})(torch.eye(3))
    torch.compiler.reset()
    with pytest.raises(Exception, match="unknown option 'thread' of backend 'kiln'; did you mean 'threads'"):
        torch.compile(module, backend=kiln, options={"thread": 1})(image)
