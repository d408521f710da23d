"""PyTorch as most people run it: eager, under inference_mode."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.deploy.peers.session import Session, Variants, Workload

PACKAGES = ("torch",)
ARTIFACT = None


def variants(workload: Workload) -> Variants:
    """Return the module in both memory formats; channels_last can win with convolutions."""
    found: Variants = {"contiguous": lambda: Eager(workload)}
    if any(array.ndim == 4 for array in workload.arrays()):
        found["channels_last"] = lambda: Eager(workload, channels_last=True)
    return found


class Eager(Session):
    """A module called on its arguments. `compile_module` may replace it by a compiled one."""

    def __init__(self, workload: Workload, *, channels_last: bool = False) -> None:
        import torch

        from compiler.deploy.benchmark_workload import load_module

        torch.set_num_threads(workload.threads)
        self._torch = torch
        module, self._args, self._kwargs = load_module(workload)
        if channels_last:
            module = module.to(memory_format=torch.channels_last)
            self._args = tuple(_channels_last(torch, value) for value in self._args)
            self._kwargs = {name: _channels_last(torch, value) for name, value in self._kwargs.items()}
        self._module = self.compile_module(module)
        self._result: Any = None

    def compile_module(self, module: Any) -> Any:
        """Return what is called in place of `module`."""
        return module

    def run(self) -> Any:
        """Call the module once."""
        with self._torch.inference_mode():
            self._result = self._module(*self._args, **self._kwargs)
        return self._result

    def outputs(self) -> list[np.ndarray]:
        """Return the tensors among the last call's outputs, flat."""
        from torch.utils._pytree import tree_leaves

        leaves = tree_leaves(self._result)
        return [leaf.numpy(force=True) for leaf in leaves if isinstance(leaf, self._torch.Tensor)]


def _channels_last(torch: Any, value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.ndim == 4:
        return value.contiguous(memory_format=torch.channels_last)
    return value
