"""OpenVINO's CPU plug-in with the latency hint, at the stated precision."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.deploy.peers.session import Session, Variants, Workload, in_order

PACKAGES = ("openvino", "onnx", "onnxscript")
ARTIFACT = "onnx"
_HINTS = {"fp32": "f32"}


def variants(workload: Workload) -> Variants:
    """Return the one setting. Without the precision hint the plug-in may compute in bfloat16."""
    return {"latency hint": lambda: _OpenVINO(workload)}


class _OpenVINO(Session):
    def __init__(self, workload: Workload) -> None:
        import openvino

        core = openvino.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[workload.precision],
            "INFERENCE_NUM_THREADS": workload.threads,
        }
        model = core.read_model(str(workload.path(ARTIFACT)))
        wanted = [port.get_any_name() for port in model.inputs]
        arrays = in_order(workload.arrays(), workload.names, wanted)
        model.reshape({port: array.shape for port, array in zip(model.inputs, arrays, strict=True)})
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        self._arrays = [np.ascontiguousarray(array) for array in arrays]
        for index, array in enumerate(self._arrays):
            self._request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))

    def run(self) -> Any:
        self._request.infer()

    def outputs(self) -> list[np.ndarray]:
        return [np.array(tensor.data) for tensor in self._request.output_tensors]
