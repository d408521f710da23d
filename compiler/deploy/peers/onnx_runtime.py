"""ONNX Runtime's CPU provider with all graph optimizations."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.deploy.peers.session import Session, Variants, Workload, in_order

PACKAGES = ("onnxruntime", "onnx", "onnxscript")
ARTIFACT = "onnx"


def variants(workload: Workload) -> Variants:
    """Return the one setting: everything on, outputs bound so that nothing is copied."""
    return {"all optimizations": lambda: _OnnxRuntime(workload)}


class _OnnxRuntime(Session):
    def __init__(self, workload: Workload) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = workload.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        path = str(workload.path(ARTIFACT))
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        wanted = [each.name for each in self._session.get_inputs()]
        arrays = in_order(workload.arrays(), workload.names, wanted)
        self._binding = self._session.io_binding()
        for name, array in zip(wanted, arrays, strict=True):
            self._binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for each in self._session.get_outputs():
            self._binding.bind_output(each.name)

    def run(self) -> Any:
        self._session.run_with_iobinding(self._binding)

    def outputs(self) -> list[np.ndarray]:
        return list(self._binding.copy_outputs_to_cpu())
