"""torch.compile with its inductor, weights frozen into the graph (which folds and pre-packs them)."""

from __future__ import annotations

from typing import Any

from compiler.deploy.peers.session import Variants, Workload
from compiler.deploy.peers.torch_eager import Eager

PACKAGES = ("torch",)
ARTIFACT = None


def variants(workload: Workload) -> Variants:
    """Return the compiled module; inductor chooses memory formats itself."""
    return {"freezing": lambda: _Inductor(workload)}


class _Inductor(Eager):
    def compile_module(self, module: Any) -> Any:
        import torch._inductor.config

        torch._inductor.config.freezing = True
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        return self._torch.compile(module, dynamic=False)
