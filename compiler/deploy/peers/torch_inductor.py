"""torch.compile with its inductor, weights frozen into the graph (which folds and pre-packs them)."""

from __future__ import annotations

from functools import partial
from typing import Any

from compiler.deploy.peers.session import Variants, Workload, require
from compiler.deploy.peers.torch_eager import Eager, How

PACKAGES = ("torch",)
ARTIFACT = None


def variants(workload: Workload) -> Variants:
    """Return the compiled module; inductor chooses memory formats itself. int8 is PT2E's, by torchao."""
    if workload.precision == "fp32":
        return {"freezing": partial(_Inductor, workload)}
    if workload.precision == "bf16":
        return {
            "autocast, freezing": partial(_Inductor, workload, How(autocast=True)),
            "bfloat16 weights, freezing": partial(_Inductor, workload, How(weights=True)),
        }
    found: Variants = {"PT2E static, freezing": partial(_Quantized, workload)}
    if not any(array.ndim == 4 for array in workload.arrays()):
        found["PT2E dynamic, freezing"] = partial(_Quantized, workload, dynamic=True)
    return found


class _Inductor(Eager):
    def compile_module(self, module: Any) -> Any:
        import torch._inductor.config

        torch._inductor.config.freezing = True
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        return self._torch.compile(module, dynamic=False)


class _Quantized(_Inductor):
    """The module as PT2E quantizes it for inductor's kernels of x86."""

    def __init__(self, workload: Workload, *, dynamic: bool = False) -> None:
        require("torchao")
        self._workload, self._dynamic = workload, dynamic
        super().__init__(workload)

    def compile_module(self, module: Any) -> Any:
        from torch.utils._pytree import tree_leaves

        from compiler.deploy.benchmark_workload import flatten

        flat = flatten(module, *self._example)
        tensors = tuple(leaf for leaf in tree_leaves(self._example) if self._is_tensor(leaf))
        self._example = (tensors, {})
        with self._torch.no_grad():
            quantized = self._quantize(flat, tensors)
        return super().compile_module(quantized)

    def _quantize(self, flat: Any, tensors: tuple[Any, ...]) -> Any:
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        quantizer = x86.X86InductorQuantizer()
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config(is_dynamic=self._dynamic))
        # Strict, as the quantizer looks for the names of functions, which only that kind of tracing keeps.
        program = self._torch.export.export(flat, tensors, strict=True)
        prepared = prepare_pt2e(program.module(), quantizer)
        for inputs, _ in self._workload.samples():
            prepared(*map(self._torch.tensor, inputs))
        return convert_pt2e(prepared)
