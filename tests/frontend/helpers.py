"""What the tests of the frontend share: small models, and how an imported graph is run."""

import numpy as np
import torch
import tvm
from torch import nn
from tvm import relax

from compiler.frontend.check import check


def compiled(mod):
    """Return the function from arrays to arrays that TVM's own pipeline makes of `mod`."""
    executable = tvm.compile(mod, target=tvm.target.Target("llvm"))
    machine = relax.VirtualMachine(executable, tvm.cpu())

    def run(inputs):
        arrays = [tvm.runtime.tensor(np.ascontiguousarray(array)) for array in inputs]
        return [output.numpy() for output in machine["main"](*arrays)]

    return run


def execute(mod, inputs):
    """Compile `mod` with TVM's own pipeline and run it."""
    return compiled(mod)(inputs)


def assert_imported(model, seed=0):
    """Check `model` against its original on fresh inputs and on the examples."""
    report = check(model, lambda inputs: execute(model.mod, inputs), execute=execute, seed=seed)
    assert report.outputs, report
    assert report.passed
    return report


class Block(nn.Module):
    """A convolution, a batch norm with statistics of its own, and nested inputs and outputs."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        nn.init.uniform_(self.norm.running_mean, -1, 1)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, image, flag: int = 3, extra=None):
        y = self.norm(self.conv(image)).relu()
        y = nn.functional.interpolate(y, scale_factor=2)
        return {"map": y, "rest": (y.mean() + extra["bias"], None, flag)}


class Recurrent(nn.Module):
    """An LSTM and a linear layer."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        y, (h, _) = self.lstm(x)
        return self.head(y), h


class Counter(nn.Module):
    """A model with state."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        self.count.add_(1)
        return self.linear(x) + self.count
