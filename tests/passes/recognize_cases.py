"""What the recognizers' tests share: run a Relax module, and find out what an imported model became."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir import assert_structural_equal

from tests.frontend.converters.harness import assert_same, import_module, ops, run, tensors_of


def assert_rewrites(apply: Any, before: tvm.IRModule, after: tvm.IRModule) -> None:
    """Check a pass by structure; the result must also be well formed."""
    got = apply(before)
    relax.analysis.well_formed(got)
    assert_structural_equal(canonical(got), canonical(after))


def assert_unchanged(apply: Any, mod: tvm.IRModule) -> None:
    assert_structural_equal(canonical(apply(mod)), canonical(mod))


def canonical(mod: tvm.IRModule) -> tvm.IRModule:
    """Remove bindings of one variable to another, which a rewriter may add at the end."""
    return relax.transform.CanonicalizeBindings()(mod)


def recognized(apply: Any, module: Any, args: Any, tolerance: float = 2e-5) -> list[str]:
    """Import a PyTorch module, apply the pass, compare with PyTorch, and give the operators left."""
    mod = apply(relax.transform.FoldConstant()(import_module(module.eval(), args)))
    relax.analysis.well_formed(mod)
    for got, want in zip(run(mod, tensors_of(args)), tensors_of(module(*args)), strict=True):
        assert_same(got, want, tolerance)
    return ops(mod)


def same_numbers(apply: Any, mod: tvm.IRModule, *arrays: np.ndarray, tolerance: float = 1e-5) -> None:
    """Run a module before and after the pass on the same inputs."""
    import torch

    inputs = [torch.from_numpy(a) for a in arrays]
    before, after = run(mod, inputs), run(apply(mod), inputs)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(other, one, atol=tolerance, rtol=tolerance)
