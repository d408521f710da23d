"""ONNX Runtime's CPU provider with all graph optimizations; int8 by its own quantizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from compiler.deploy.peers import onnx_quantize
from compiler.deploy.peers.session import Session, Variants, Workload, in_order

PACKAGES = ("onnxruntime", "onnx", "onnxscript")
ARTIFACT = "onnx"


def variants(workload: Workload) -> Variants:
    """Return everything on, outputs bound so that nothing is copied; at int8 every kind of quantization.

    Dynamic quantization is for matrix products: without any it would only cost time to try.
    """
    if workload.precision != "int8":
        return {"all optimizations": lambda: _OnnxRuntime(workload, workload.path(ARTIFACT))}
    found: Variants = {
        "static QDQ, per channel": lambda: _OnnxRuntime(workload, onnx_quantize.static(workload))
    }
    if "MatMul" in onnx_quantize.operators(workload):
        found |= {
            "dynamic, per channel": lambda: _OnnxRuntime(workload, onnx_quantize.dynamic(workload)),
            "transformer optimizer, dynamic": lambda: _OnnxRuntime(
                workload, onnx_quantize.dynamic_fused(workload)
            ),
        }
    return found


class _OnnxRuntime(Session):
    def __init__(self, workload: Workload, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = workload.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._names = workload.names
        self._binding = self._session.io_binding()
        self.feed(workload.arrays())
        for each in self._session.get_outputs():
            self._binding.bind_output(each.name)

    def feed(self, arrays: list[np.ndarray]) -> None:
        wanted = [each.name for each in self._session.get_inputs()]
        # Kept, as the binding reads them where they are.
        self._arrays = [np.ascontiguousarray(a) for a in in_order(arrays, self._names, wanted)]
        for name, array in zip(wanted, self._arrays, strict=True):
            self._binding.bind_cpu_input(name, array)

    def run(self) -> Any:
        self._session.run_with_iobinding(self._binding)

    def outputs(self) -> list[np.ndarray]:
        return list(self._binding.copy_outputs_to_cpu())
