"""Kernels are named by the layers of the user's model that they compute."""

import torch
from torch import nn

from compiler import frontend
from compiler.ir.layers import hint, layer_of
from compiler.passes import optimize
from compiler.target import load


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = (
            nn.Conv2d(16, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.Conv2d(16, 16, 1),
        )

    def forward(self, x):
        return torch.relu(self.two(torch.relu(self.norm(self.one(x)))) + x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3))), x


class Var:
    def __init__(self, name):
        self.name = name


def test_hints_and_what_tvm_makes_of_them():
    assert layer_of(Var(hint("conv2d_1"))) == "conv2d_1"
    assert layer_of(Var("conv2d_1__2")) == "conv2d_1"
    assert layer_of(Var("lv3")) == layer_of(Var("conv2d_1")) == layer_of(None) == hint("") == ""


def calls(model, target):
    mod, _ = optimize(model.mod, target)
    bindings = [binding for block in mod["main"].body.blocks for binding in block.bindings]
    return [
        (each.value.args[0].name_hint, layer_of(each.var))
        for each in bindings
        if getattr(getattr(each.value, "op", None), "name", "") == "relax.call_tir"
    ]


def test_equal_kernels_have_the_names_of_their_own_layers():
    torch.manual_seed(0)
    model = frontend.load(Net().eval(), (torch.randn(1, 16, 8, 8),))
    found = calls(model, load("x86-64-v3"))
    layers = [model.layers[node] for kernel, node in found if "conv2d" in kernel]
    after = ("norm batch_norm", "add")
    assert layers == [
        f"blocks.{n} relu after blocks.{n}{'.' if each.startswith('norm') else ' '}{each}"
        for n in range(3)
        for each in after
    ]
    nodes = [node for kernel, node in found if "conv2d" in kernel]
    assert len(set(nodes)) == 6
    assert len({kernel for kernel, _ in found if "conv2d" in kernel}) < 6
    assert [model.layers[node] for kernel, node in found if "dense" in kernel] == ["head linear"]


def test_what_the_importer_knows():
    model = frontend.load(Net().eval(), (torch.randn(1, 16, 8, 8),))
    assert model.layers["convolution"] == "blocks.0.one convolution"
    assert "blocks.2.norm batch_norm" in model.layers.values()
