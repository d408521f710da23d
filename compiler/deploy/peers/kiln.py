"""Kiln itself, measured exactly as its peers are: inputs in place, outputs in host memory."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from compiler.deploy.peers.session import Session, Variants, Workload
from compiler.support.errors import InternalError

PACKAGES = ("tvm",)
ARTIFACT = "bundle"


def variants(workload: Workload) -> Variants:
    """Return the bundle as it was compiled."""
    return {"as compiled": lambda: _Bundle(workload)}


class _Bundle(Session):
    def __init__(self, workload: Workload) -> None:
        from compiler.deploy.session import load

        self._model = load(workload.path(ARTIFACT), threads=workload.threads)
        self._result: list[Any] = []
        self.feed(workload.arrays())

    def feed(self, arrays: list[np.ndarray]) -> None:
        self._arrays = arrays
        self._inputs = self._model.prepare(arrays)

    def run(self) -> Any:
        self._result = self._model.invoke(self._inputs)
        return self._result

    def outputs(self) -> list[np.ndarray]:
        from compiler.deploy.tensors import to_numpy

        return [to_numpy(value) for value in self._result]

    def profile(self, runs: int) -> dict[str, Any]:
        from compiler.deploy.peak import measure_peak
        from compiler.deploy.profile import profile

        if self._model.manifest is None:
            raise InternalError("the benchmark runs a bundle, and every bundle has a manifest")
        peak = measure_peak(self._model.threads)
        return asdict(profile(self._model, self._arrays, self._model.manifest.kernels, peak, runs))
