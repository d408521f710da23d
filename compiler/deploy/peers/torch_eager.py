"""PyTorch as most people run it: eager, under inference_mode; bf16 by autocast or by weights of it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from compiler.deploy.peers.session import Session, Variants, Workload

PACKAGES = ("torch",)
ARTIFACT = None


@dataclass(frozen=True)
class How:
    """How a module is run: its memory format, and at bf16 what lowers the precision."""

    channels_last: bool = False
    autocast: bool = False
    weights: bool = False


AS_IT_IS = How()


def variants(workload: Workload) -> Variants:
    """Return the module in both memory formats: channels_last can win with convolutions."""
    formats = {"contiguous": AS_IT_IS}
    if any(array.ndim == 4 for array in workload.arrays()):
        formats["channels_last"] = How(channels_last=True)
    if workload.precision == "fp32":
        ways = formats
    else:
        autocast = {f"autocast, {name}": replace(how, autocast=True) for name, how in formats.items()}
        weights = {f"bfloat16 weights, {name}": replace(how, weights=True) for name, how in formats.items()}
        ways = autocast | weights
    return {name: partial(Eager, workload, how) for name, how in ways.items()}


class Eager(Session):
    """A module called on its arguments. `compile_module` may replace it by a compiled one."""

    def __init__(self, workload: Workload, how: How = AS_IT_IS) -> None:
        import torch

        from compiler.deploy.benchmark_workload import load_module

        torch.set_num_threads(workload.threads)
        self._torch, self._how = torch, how
        module, args, kwargs = load_module(workload)
        self._example: tuple[tuple[Any, ...], dict[str, Any]] = (args, kwargs)
        if how.channels_last:
            module = module.to(memory_format=torch.channels_last)
        if how.weights:
            module = _with_weights_of_bf16(torch, module)
        self._module = self.compile_module(module)
        self._result: Any = None
        self.feed(workload.arrays())

    def compile_module(self, module: Any) -> Any:
        """Return what is called in place of `module`."""
        return module

    def feed(self, arrays: list[np.ndarray]) -> None:
        """Put the arrays where the tensors among the example's arguments are."""
        from torch.utils._pytree import tree_flatten, tree_unflatten

        leaves, nesting = tree_flatten(self._example)
        rest = iter(arrays)
        values = [self._tensor(next(rest)) if self._is_tensor(leaf) else leaf for leaf in leaves]
        self._args, self._kwargs = tree_unflatten(values, nesting)

    def _tensor(self, array: np.ndarray) -> Any:
        tensor = self._torch.tensor(array)
        if self._how.channels_last and tensor.ndim == 4:
            return tensor.contiguous(memory_format=self._torch.channels_last)
        return tensor

    def _is_tensor(self, value: Any) -> bool:
        return isinstance(value, self._torch.Tensor)

    def run(self) -> Any:
        """Call the module once."""
        casting = (
            self._torch.autocast("cpu", self._torch.bfloat16)
            if self._how.autocast
            else contextlib.nullcontext()
        )
        with self._torch.inference_mode(), casting:
            self._result = self._module(*self._args, **self._kwargs)
        return self._result

    def outputs(self) -> list[np.ndarray]:
        """Return the tensors among the last call's outputs, flat; numpy has no bfloat16."""
        from torch.utils._pytree import tree_leaves

        tensors = [leaf for leaf in tree_leaves(self._result) if self._is_tensor(leaf)]
        return [(t.float() if t.dtype == self._torch.bfloat16 else t).numpy(force=True) for t in tensors]


def _with_weights_of_bf16(torch: Any, module: Any) -> Any:
    """Return a module that takes what `module` took and computes in bfloat16."""
    from torch.utils._pytree import tree_map_only

    class Lowered(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = module.to(torch.bfloat16)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            lower = lambda t: t.bfloat16() if t.is_floating_point() else t  # noqa: E731
            args, kwargs = tree_map_only(torch.Tensor, lower, (args, kwargs))
            return self.model(*args, **kwargs)

    lowered = Lowered()
    lowered.training = False
    return lowered
