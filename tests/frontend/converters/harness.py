"""Imports a small module with Kiln's converters, runs it with TVM's own pipeline, compares with PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import tvm
from torch.utils import _pytree as pytree
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program

from compiler.frontend import load
from compiler.frontend.converters import CONVERTERS, decomposition_table

torch.set_num_threads(1)
# Cases are made while modules are collected, before the fixture that seeds each test.
torch.manual_seed(int(os.environ.get("KILN_TEST_SEED", "0")))


class Wrap(torch.nn.Module):
    """A module around a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *a: Any) -> Any:
        return self.function(*a)


def as_module(model: Any) -> torch.nn.Module:
    return (model if isinstance(model, torch.nn.Module) else Wrap(model)).eval()


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Move parameters and statistics off their initial values, behind which errors hide."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        noise = torch.rand(tensor.shape, generator=generator)
        with torch.no_grad():
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise)
            elif tensor.ndim <= 1 or name.endswith("gamma"):
                tensor.add_((noise - 0.5) * 0.4)
    return module


def missing(program: torch.export.ExportedProgram) -> set[str]:
    names = {node.target.__name__ for node in program.graph.nodes if node.op == "call_function"}
    return names - CONVERTERS.keys()


def import_module(module: torch.nn.Module, args: Sequence[Any], dynamic_shapes: Any = None) -> tvm.IRModule:
    exported = torch.export.export(module, tuple(args), dynamic_shapes=dynamic_shapes)
    if dynamic_shapes is not None:
        # TVM's importer cannot take inputs whose sizes are expressions, Kiln's can.
        return load(exported).mod
    program = exported.run_decompositions(decomposition_table())
    assert not missing(program), f"no converter for {sorted(missing(program))}"
    return from_exported_program(program, custom_convert_map=CONVERTERS, run_ep_decomposition=False)


def run(mod: tvm.IRModule, tensors: Sequence[torch.Tensor]) -> list[np.ndarray]:
    # Most of a test's time is LLVM's optimizer, which has no say in what the graph means.
    target = tvm.target.Target({"kind": "llvm", "opt-level": 0})
    machine = relax.VirtualMachine(relax.build(mod, target), tvm.cpu())
    inputs = [tvm.runtime.tensor(t.detach().contiguous().numpy()) for t in tensors]
    return [output.numpy() for output in machine["main"](*inputs)]


def tensors_of(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def ops(mod: tvm.IRModule) -> list[str]:
    """Names of the Relax operators of ``main`` in order, constants' producers included."""
    found: list[str] = []

    def visit(expr: Any) -> None:
        if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op):
            found.append(expr.op.name.removeprefix("relax."))

    relax.analysis.post_order_visit(mod["main"], visit)
    return found


def assert_same(got: np.ndarray, want: torch.Tensor, tolerance: float) -> None:
    """Compare dtype, shape and values; NaN and infinities must agree in place and sign."""
    expected = want.detach().numpy()
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected)
        return
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(got[~finite], expected[~finite])
    if finite.any():
        spread = max(float(np.ptp(expected[finite])), float(np.abs(expected[finite]).max()) * 0.1, 1e-6)
        assert np.abs(got[finite].astype("float64") - expected[finite]).max() <= tolerance * spread


def check(
    model: Any,
    args: Sequence[Any],
    dynamic_shapes: Any = None,
    other: Sequence[Any] = (),
    tolerance: float = 2e-5,
) -> tvm.IRModule:
    """Import with `args`, run on them and on `other` (other sizes), compare; return the module."""
    module = as_module(model)
    mod = import_module(module, args, dynamic_shapes)
    for inputs in (args, other) if other else (args,):
        got = run(mod, tensors_of(inputs))
        with torch.no_grad():
            want = tensors_of(module(*inputs))
        assert len(got) == len(want)
        for one, expected in zip(got, want, strict=True):
            assert_same(one, expected, tolerance)
    return mod
