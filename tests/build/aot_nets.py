"""A network for tests of ahead-of-time libraries, and how such a library is built of one."""

import torch
from torch import nn

from compiler import frontend
from compiler.build.aot import build_aot
from compiler.build.c_source import Names
from compiler.build.cpu_checks import cpu_checks
from compiler.passes import optimize
from compiler.schedule import schedule
from compiler.target import load


class Branches(nn.Module):
    """Convolutions with a sum of two paths, softmax (which needs scratch memory), and two outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        y = torch.relu(self.first(x))
        y = torch.relu(self.second(y) + y)
        return self.head(y.mean((2, 3))).softmax(-1), y


class First(Branches):
    """Only the first output."""

    def forward(self, x):
        return super().forward(x)[0]


def branches(kind=Branches):
    """Return the network with the same weights each time."""
    torch.manual_seed(0)
    return kind().eval()


def scheduled(net, inputs, target=None):
    """Return a network's kernels, their target, and names for C."""
    target = target or load("host")
    model = frontend.load(net.eval(), inputs)
    names = Names(
        "net", [each.name for each in model.signature.inputs],
        [each.name for each in model.signature.outputs], model.layers, ["A test."], target.cpu,
        cpu_checks(target),
    )  # fmt: skip
    return (schedule(optimize(model.mod, target)[0], target)[0], target, names)


def built(net, inputs, folder, target=None, **how):
    mod, target, names = scheduled(net, inputs, target)
    return build_aot(mod, target, folder, names, **how)
