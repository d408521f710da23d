"""Target: one device, read from targets/*.yaml."""

from __future__ import annotations

from dataclasses import dataclass

import tvm


@dataclass(frozen=True)
class Target:
    """One device."""

    name: str
    kind: str = "cpu"
    cpu: str = "znver4"
    cores: int = 2

    def tvm_target(self) -> tvm.target.Target:
        return tvm.target.Target({"kind": "llvm", "mcpu": self.cpu, "num-cores": self.cores})


def load(name: str = "host") -> Target:
    return Target(name)
