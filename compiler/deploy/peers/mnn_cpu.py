"""MNN on a model that its own converter made from ONNX."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from compiler.deploy.peers.session import PeerError, Session, Variants, Workload, in_order

PACKAGES = ("MNN", "onnx", "onnxscript")
ARTIFACT = "onnx"

_CONVERT = "import sys, MNN, _tools; _tools.mnnconvert(sys.argv)"
"""The converter itself. MNN's own wrapper, ``MNN.tools.mnnconvert``, runs ``pip install`` for a logging
client and sends what was converted, and a number of this machine, to its makers."""


def variants(workload: Workload) -> Variants:
    """Return the one setting: the CPU backend in full precision."""
    return {"precision high": lambda: _MNN(workload)}


class _MNN(Session):
    def __init__(self, workload: Workload) -> None:
        import MNN
        import onnx

        graph = onnx.load(str(workload.path(ARTIFACT)), load_external_data=False).graph
        weights = {each.name for each in graph.initializer}
        inputs = [each.name for each in graph.input if each.name not in weights]
        self._wanted, self._names = inputs, workload.names
        outputs = [each.name for each in graph.output]
        nn, self._expr = MNN.nn, MNN.expr
        config = {"backend": "CPU", "precision": "high", "numThread": workload.threads}
        runtime = nn.create_runtime_manager((config,))
        path = str(_convert(workload))
        self._module = nn.load_module_from_file(path, inputs, outputs, runtime_manager=runtime)
        self._result: list[Any] = []
        self.feed(workload.arrays())

    def feed(self, arrays: list[np.ndarray]) -> None:
        ordered = in_order(arrays, self._names, self._wanted)
        self._inputs = [_variable(self._expr, array) for array in ordered]

    def run(self) -> Any:
        # Variables are lazy: reading them is what waits for the result.
        self._result = [np.array(value.read()) for value in self._module.onForward(self._inputs)]
        return self._result

    def outputs(self) -> list[np.ndarray]:
        return self._result


def _variable(expr: Any, array: np.ndarray) -> Any:
    """Return MNN's copy of `array`; it computes with 32-bit integers."""
    if array.dtype == np.int64:
        array = array.astype(np.int32)
    kinds = {"float32": expr.float, "int32": expr.int}
    if str(array.dtype) not in kinds:
        raise PeerError(f"it takes no input of dtype {array.dtype}")
    variable = expr.placeholder(list(array.shape), expr.NCHW, kinds[str(array.dtype)])
    variable.write(np.ascontiguousarray(array))
    return variable


def _convert(workload: Workload) -> Path:
    source = workload.path(ARTIFACT)
    target = source.with_suffix(".mnn")
    command = [sys.executable, "-c", _CONVERT, "-f", "ONNX", "--modelFile", source.name]
    command += ["--MNNModel", target.name, "--bizCode", "kiln"]
    result = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=False)
    if result.returncode or not target.exists():
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise PeerError(f"its converter failed: {lines[-1] if lines else f'exit code {result.returncode}'}")
    return target
