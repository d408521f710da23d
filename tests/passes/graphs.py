"""Small graphs for pass tests: build one, run one without any schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax


def graph(build: Callable[..., Any], **shapes: Sequence[Any]) -> tvm.IRModule:
    """Return a module whose ``main`` takes float32 tensors of `shapes` and returns what `build` gives.

    `build` gets the builder's `emit` and the inputs, and gives an expression or a list of them. Weights are
    constants.
    """
    inputs = [relax.Var(name, relax.TensorType(list(shape), "float32")) for name, shape in shapes.items()]
    builder = relax.BlockBuilder()
    with builder.function("main", inputs):
        with builder.dataflow():
            given = build(builder.emit, *inputs)
            listed = given if isinstance(given, list) else [given]
            results = [each if isinstance(each, tvm.ir.Var) else builder.emit(each) for each in listed]
            output = builder.emit_output(relax.Tuple(results))
        builder.emit_func_output(output)
    return builder.finalize()


def const(*shape: int, seed: int = 0, low: float = -1.0) -> Any:
    """Return a random float32 constant, uniform in [low, 1)."""
    return relax.const(np.random.default_rng(seed + sum(shape)).uniform(low, 1, shape).astype("float32"))


def run(mod: tvm.IRModule, *arrays: np.ndarray) -> np.ndarray:
    """Return the first output of `mod` with TVM's own, unscheduled kernels."""
    mod = relax.transform.LegalizeOps()(relax.transform.DecomposeOpsForInference()(mod))
    executable = relax.build(mod, tvm.target.Target({"kind": "llvm"}))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    output = machine["main"](*[tvm.runtime.tensor(array) for array in arrays])[0].numpy()
    assert isinstance(output, np.ndarray)
    return output


def operators(mod: tvm.IRModule) -> list[str]:
    """Return the names of the operators and kernels that ``main`` calls, in order."""
    names = []
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            if isinstance(binding.value, tvm.ir.Call):
                call = binding.value
                kernel = call.op.name == "relax.call_tir"
                names.append(call.args[0].name_hint if kernel else call.op.name.removeprefix("relax."))
    return names


def random(*shape: int, seed: int = 1) -> np.ndarray:
    """Return a standard normal float32 array."""
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def assert_same_numbers(before: tvm.IRModule, after: tvm.IRModule, *arrays: np.ndarray) -> None:
    """Run both modules and compare: rounding differs where weights were multiplied ahead."""
    np.testing.assert_allclose(run(after, *arrays), run(before, *arrays), rtol=1e-4, atol=1e-4)
