"""Small networks that the tests of the build stage compile, with what PyTorch says of them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm
from torch import nn
from tvm import relax

from compiler.build import Built, build
from compiler.compress.activations import at_run_time, stored
from compiler.compress.floats import FloatGrid
from compiler.compress.scheme import (
    Binary,
    Float,
    Linear,
    Log2,
    PerChannel,
    PerGroup,
    PerTensor,
    scheme_named,
)
from compiler.compress.weights import quantize_weights
from compiler.frontend import load as import_model
from compiler.ir.constants import constant
from compiler.passes import optimize
from compiler.schedule import schedule
from compiler.target import Target
from tests.passes.graphs import graph, random, run
from tests.passes.test_lower_quantized import layer, q, w


class ConvNet(nn.Module):
    """Convolutions, a pooling, a reduction, a matrix product and a softmax, which needs libm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.last = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = nn.functional.max_pool2d(torch.relu(self.second(x)), 2)
        return torch.softmax(self.last(torch.tanh(x.mean((2, 3)))), -1)


class Attention(nn.Module):
    """One head that masks its scores, layer norm and GELU: the kernels of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(64, 64) for _ in range(3))
        self.norm, self.up, self.down = nn.LayerNorm(64), nn.Linear(64, 256), nn.Linear(256, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.query(x) @ self.key(x).transpose(-1, -2) / 8
        mask = torch.tril(torch.ones(32, 32, dtype=torch.bool))
        x = x + torch.softmax(scores.masked_fill(~mask, -1e9), -1) @ self.value(x)
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


@dataclass(frozen=True)
class Case:
    """An imported network, one input and the output that PyTorch computes for it."""

    mod: tvm.IRModule
    input: np.ndarray
    output: np.ndarray

    def build(self, target: Target, folder: Path) -> Built:
        """Compile it for `target` into `folder`."""
        return build(self.scheduled(target), target, folder)

    def scheduled(self, target: Target) -> tvm.IRModule:
        """Return the kernels, scheduled for `target`."""
        return schedule(optimize(self.mod, target)[0], target)[0]


@cache
def quantized_net() -> Case:
    """Layers of bytes: of three and of many channels, depthwise, a residual, pooling, a dense one.

    Its output is on a grid of `QUANTUM`; what is expected is the float graph around quantize and dequantize.
    """

    def build(emit: Any, x: Any) -> Any:
        first = q(emit, layer(emit, q(emit, x, 0.03, 128), 16, 3), 0.1, 90)
        wide = q(emit, emit(relax.op.nn.relu(layer(emit, first, 16, 16))), 0.3)
        deep = layer(emit, wide, 16, 16, groups=16)
        added = q(emit, emit(relax.op.add(deep, first)), 0.3, 120)
        pooled = q(emit, emit(relax.op.nn.max_pool2d(added, 2, strides=2)), 0.3, 120)
        rows = emit(relax.op.reshape(pooled, (4, 196)))
        return q(emit, emit(relax.op.matmul(rows, w(emit, 196, 10, axis=1))), QUANTUM, 128)

    mod, x = graph(build, x=(1, 3, 14, 14)), random(1, 3, 14, 14)
    return Case(mod, x, run(mod, x))


@cache
def coded_net() -> Case:
    """A layer of each kind of small weights: images of three and of many channels, a gate, rows, signs."""

    def weights(quantizer: Any, *shape: int, axis: int = 0) -> Any:
        given = random(*shape) / np.float32(np.sqrt(np.prod(shape) / shape[axis]))
        return quantize_weights(given, quantizer, axis, 1 - axis).expr()

    eight, four = Linear(8, granularity=PerChannel()), Linear(4, granularity=PerGroup(8))

    def build(emit: Any, x: Any) -> Any:
        def conv(y: Any, quantizer: Any, *shape: int, **options: Any) -> Any:
            return emit(relax.op.nn.conv2d(y, emit(weights(quantizer, *shape)), **options))

        first = emit(relax.op.nn.relu(conv(x, eight, 20, 3, 3, 3, padding=1)))
        grouped = emit(relax.op.nn.relu(conv(first, four, 16, 20, 3, 3, padding=1, strides=2)))
        powers = conv(grouped, Log2(), 24, 16, 3, 3, padding=1)
        mean = emit(relax.op.mean(powers, [2, 3], keepdims=True))
        gate = emit(relax.op.sigmoid(conv(mean, eight, 24, 24, 1, 1)))
        gated = emit(relax.op.multiply(powers, gate))
        signs = conv(gated, Binary(), 32, 24, 1, 1)
        bits = conv(at_run_time(emit, signs, Binary(PerTensor())), Binary(), 40, 32, 3, 3, padding=1)
        rows = emit(relax.op.mean(bits, [2, 3]))
        hidden = emit(relax.op.matmul(rows, emit(weights(four, 40, 33, axis=1))))
        sides = at_run_time(emit, hidden, Binary(PerTensor()))
        return relax.op.matmul(sides, emit(weights(Binary(), 33, 9, axis=1)))

    mod, x = graph(build, x=(1, 3, 14, 14)), random(1, 3, 14, 14)
    return Case(mod, x, run(mod, x))


@cache
def short_net() -> Case:
    """Layers of bfloat16: of three and of many channels, depthwise, a residual, pooling, a dense one."""
    return _rounded_net(FloatGrid(Float("bfloat16")))


@cache
def half_net() -> Case:
    """The same layers of float16, of which no CPU has dot products that sum in float32."""
    return _rounded_net(FloatGrid(Float("float16")))


@cache
def dynamic_net() -> Case:
    """Matrix products of bytes with scales computed at run time: of many rows and of one."""
    scheme = scheme_named("int8-dynamic")

    def product(emit: Any, x: Any, *shape: int) -> Any:
        assert isinstance(scheme.activations, Linear)
        weights = quantize_weights(random(*shape), scheme.weights, 1, 0).expr()
        return emit(relax.op.matmul(at_run_time(emit, x, scheme.activations), emit(weights)))

    def build(emit: Any, x: Any) -> Any:
        hidden = emit(relax.op.tanh(product(emit, x, 45, 64)))
        return product(emit, emit(relax.op.mean(hidden, [1])), 64, 33)

    mod, x = graph(build, x=(1, 21, 45)), random(1, 21, 45)
    return Case(mod, x, run(mod, x))


def _rounded_net(grid: FloatGrid) -> Case:
    def build(emit: Any, x: Any) -> Any:
        def conv(y: Any, *shape: int, **options: Any) -> Any:
            weights = quantize_weights(random(*shape) / 4, grid.kind, 0).values
            return emit(relax.op.nn.conv2d(y, constant(weights), padding=1, **options))

        first = stored(emit, emit(relax.op.nn.relu(conv(stored(emit, x, grid), 20, 3, 3, 3))), grid)
        deep = stored(emit, conv(first, 20, 1, 3, 3, groups=20), grid)
        added = stored(emit, emit(relax.op.add(conv(deep, 20, 20, 3, 3), first)), grid)
        pooled = emit(relax.op.nn.max_pool2d(added, 2, strides=2))
        rows = emit(relax.op.reshape(pooled, (4, 245)))
        weights = quantize_weights(random(245, 10) / 8, grid.kind, 1, 0).values
        return relax.op.matmul(rows, constant(weights))

    mod, x = graph(build, x=(1, 3, 14, 14)), random(1, 3, 14, 14)
    return Case(mod, x, run(mod, x))


QUANTUM = 1.5
"""The step of the output of `quantized_net`."""


def conv_net() -> Case:
    return _case(ConvNet, (1, 3, 32, 32))


def attention() -> Case:
    return _case(Attention, (1, 32, 64))


@cache
def _case(network: type[nn.Module], shape: tuple[int, ...]) -> Case:
    torch.manual_seed(0)
    model = network().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    x = torch.randn(shape)
    with torch.no_grad():
        expected = model(x).numpy()
    return Case(import_model(model, (x,)).mod, x.numpy(), expected)
