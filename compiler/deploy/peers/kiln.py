"""Kiln itself, measured exactly as its peers are: inputs in place, outputs in host memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.deploy.peers.session import Session, Variants, Workload

PACKAGES = ("tvm",)
ARTIFACT = "bundle"


def variants(workload: Workload) -> Variants:
    """Return the bundle as it was compiled."""
    return {"as compiled": lambda: _Bundle(workload)}


class _Bundle(Session):
    def __init__(self, workload: Workload) -> None:
        from compiler.deploy.session import load

        self._model = load(workload.path(ARTIFACT), threads=workload.threads)
        self._inputs = self._model.prepare(workload.arrays())
        self._result: list[Any] = []

    def run(self) -> Any:
        self._result = self._model.invoke(self._inputs)
        return self._result

    def outputs(self) -> list[np.ndarray]:
        from compiler.deploy.tensors import to_numpy

        return [to_numpy(value) for value in self._result]
