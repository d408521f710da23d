"""OpenVINO's CPU plug-in with the latency hint; int8 by NNCF, its makers' quantizer, or from a QDQ file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from compiler.deploy.peers import onnx_quantize
from compiler.deploy.peers.session import PeerError, Session, Variants, Workload, in_order, require

PACKAGES = ("openvino", "onnx", "onnxscript")
ARTIFACT = "onnx"


def variants(workload: Workload) -> Variants:
    """Return the one setting in float; at int8 each quantizer, what stays in float in both precisions.

    Without a hint for the precision the plug-in computes in bfloat16 where the CPU can.
    """
    if workload.precision == "fp32":
        return {"latency hint": lambda: _OpenVINO(workload, workload.path(ARTIFACT), "f32")}
    if workload.precision == "bf16":
        if not _has_bf16():
            raise PeerError("this CPU lacks bfloat16 instructions, and it then computes in float32")
        return {"latency hint, bf16": lambda: _OpenVINO(workload, workload.path(ARTIFACT), "bf16")}
    return _int8_variants(workload)


def _int8_variants(workload: Workload) -> Variants:
    makers: dict[str, Callable[[], Path]] = {
        f"NNCF, {preset}": partial(_nncf, workload, preset) for preset in _presets(workload)
    }
    makers["ONNX Runtime's static QDQ"] = partial(onnx_quantize.static, workload)
    hints = ("f32", "bf16") if _has_bf16() else ("f32",)

    def session(make: Callable[[], Path], hint: str) -> Session:
        return _OpenVINO(workload, make(), hint)

    return {
        f"{name}, rest {hint}": partial(session, make, hint)
        for name, make in makers.items()
        for hint in hints
    }


def _has_bf16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _presets(workload: Workload) -> tuple[str, ...]:
    """Return the kinds of NNCF's quantization that suit the model: attention has one of its own."""
    attends = {"MatMul", "Softmax"} <= onnx_quantize.operators(workload)
    return ("transformer",) if attends else ("performance", "mixed")


def _nncf(workload: Workload, preset: str) -> Path:
    """Return the model that NNCF quantized with the workload's samples; it is made once."""
    target = workload.folder / f"model.nncf-{preset}.xml"
    if target.exists():
        return target
    require("nncf")
    # Or NNCF numbers this machine in a file, and tells its makers what it quantizes.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import nncf
    import openvino

    model, wanted = _read(workload, workload.path(ARTIFACT))
    samples = [in_order(inputs, workload.names, wanted) for inputs, _ in workload.samples()]
    kind = (
        {"model_type": nncf.ModelType.TRANSFORMER}
        if preset == "transformer"
        else {"preset": nncf.QuantizationPreset(preset)}
    )
    quantized = nncf.quantize(
        model, nncf.Dataset(samples), subset_size=len(samples), target_device=nncf.TargetDevice.CPU, **kind
    )
    openvino.save_model(quantized, str(target), compress_to_fp16=False)
    return target


def _read(workload: Workload, path: Path) -> tuple[Any, list[str]]:
    """Return a file's model for the shapes of the workload, and the names of its inputs."""
    import openvino

    model = openvino.Core().read_model(str(path))
    wanted = [port.get_any_name() for port in model.inputs]
    arrays = in_order(workload.arrays(), workload.names, wanted)
    model.reshape({port: array.shape for port, array in zip(model.inputs, arrays, strict=True)})
    return model, wanted


class _OpenVINO(Session):
    def __init__(self, workload: Workload, path: Path, precision: str) -> None:
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": workload.threads,
        }
        model, self._wanted = _read(workload, path)
        self._names = workload.names
        self._request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
        self.feed(workload.arrays())

    def feed(self, arrays: list[np.ndarray]) -> None:
        import openvino

        ordered = in_order(arrays, self._names, self._wanted)
        self._arrays = [np.ascontiguousarray(array) for array in ordered]
        for index, array in enumerate(self._arrays):
            self._request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))

    def run(self) -> Any:
        self._request.infer()

    def outputs(self) -> list[np.ndarray]:
        return [np.array(tensor.data) for tensor in self._request.output_tensors]
