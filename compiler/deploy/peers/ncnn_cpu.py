"""ncnn on a model that pnnx converted from TorchScript.

ncnn has no batch dimension: a leading extent of 1 is dropped on the way in and comes back on the way out.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from compiler.deploy.peers.session import PeerError, Session, Variants, Workload

PACKAGES = ("ncnn", "pnnx")
ARTIFACT = "torchscript"
_KINDS = {"float32": "", "int64": "i64", "int32": "i32"}


def variants(workload: Workload) -> Variants:
    """Return the one setting: packed layouts, Winograd and SGEMM on, half precision as asked for."""
    name = "bf16 storage" if workload.precision == "bf16" else "winograd, fp16 off"
    return {name: lambda: _Ncnn(workload)}


class _Ncnn(Session):
    def __init__(self, workload: Workload) -> None:
        import ncnn

        arrays = workload.arrays()
        for array in arrays:
            if array.ndim > 1 and array.shape[0] != 1:
                raise PeerError(f"it has no batch dimension, and an input has a batch of {array.shape[0]}")
        self._ncnn = ncnn
        self._shapes = [array.shape for array in workload.reference()]
        param = _convert(workload)
        self._net = ncnn.Net()
        option = self._net.opt
        option.num_threads = workload.threads
        option.use_vulkan_compute = False
        for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(option, name, False)
        option.use_bf16_storage = workload.precision == "bf16"
        option.use_packing_layout = option.use_winograd_convolution = option.use_sgemm_convolution = True
        if self._net.load_param(str(param)) or self._net.load_model(str(param.with_suffix(".bin"))):
            raise PeerError("it cannot load what pnnx converted: an operator is missing")
        self._result: list[Any] = []
        self.feed(arrays)

    def feed(self, arrays: list[np.ndarray]) -> None:
        self._inputs = [(f"in{i}", self._ncnn.Mat(_drop_batch(a)).clone()) for i, a in enumerate(arrays)]

    def run(self) -> Any:
        with self._net.create_extractor() as extractor:
            for name, value in self._inputs:
                extractor.input(name, value)
            self._result = []
            for index in range(len(self._shapes)):
                code, value = extractor.extract(f"out{index}")
                if code:
                    raise PeerError(f"output out{index} cannot be computed (ncnn's error {code})")
                self._result.append(value)
        return self._result

    def outputs(self) -> list[np.ndarray]:
        found = [np.array(value) for value in self._result]
        return [a.reshape(s) if a.size == np.prod(s) else a for a, s in zip(found, self._shapes, strict=True)]


def _drop_batch(array: np.ndarray) -> np.ndarray:
    squeezed = array[0] if array.ndim > 1 else array
    return np.ascontiguousarray(squeezed.astype(np.int32) if squeezed.dtype == np.int64 else squeezed)


def _convert(workload: Workload) -> Path:
    """Run pnnx beside the TorchScript file and return the ``.param`` file of ncnn's model."""
    import pnnx

    source = workload.path(ARTIFACT)
    shapes = []
    for array in workload.arrays():
        if str(array.dtype) not in _KINDS:
            raise PeerError(f"pnnx takes no input of dtype {array.dtype}")
        shapes.append(f"[{','.join(map(str, array.shape))}]{_KINDS[str(array.dtype)]}")
    command = [pnnx.EXEC_PATH, source.name, f"inputshape={','.join(shapes)}", "fp16=0"]
    result = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=False)
    param = source.with_suffix(".ncnn.param")
    if result.returncode or not param.exists():
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise PeerError(f"pnnx failed: {lines[-1] if lines else f'exit code {result.returncode}'}")
    return param
