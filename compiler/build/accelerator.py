"""What becomes of the kernels of an accelerator on their way into the library."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from compiler.build.cuda import CudaCode, compile_cuda, fat_binary
from compiler.build.device_code import DeviceModule, read_device_module
from compiler.support.progress import note
from compiler.target import Target

_SUFFIXES = {"cuda": "cu", "opencl": "cl", "metal": "metal"}


@dataclass
class DeviceCode:
    """Collects the device modules of one build: their sources, and what there is to say about them."""

    target: Target
    folder: Path = Path()
    sources: dict[str, str] = field(default_factory=dict)
    _modules: list[DeviceModule] = field(default_factory=list)
    _compiled: list[CudaCode] = field(default_factory=list)

    def rewrite(self, kind: str, data: bytes) -> bytes:
        """Return a serialized device module as the library shall hold it: CUDA C compiled, others as is."""
        if kind not in _SUFFIXES:
            return data
        module = read_device_module(kind, data)
        self._modules.append(module)
        self._keep(_SUFFIXES[kind], module.source)
        if kind != "cuda":
            return data
        assert self.target.accelerator is not None
        code = compile_cuda(module.source, self.target.accelerator.arch, self.folder)
        if code is None:
            return data
        self._compiled.append(code)
        self._keep("ptx", code.ptx)
        note(f"{len(module.kernels)} kernels compiled for {code.arch} by {code.compiler}")
        return module.with_code("fatbin", fat_binary(code)).to_bytes()

    def notes(self) -> list[str]:
        """Return sentences for the manifest: what was made, and what was not run."""
        kind = {"cuda": "CUDA", "opencl": "OpenCL", "metal": "Metal"}.get(self.target.kind, "")
        count = sum(len(module.kernels) for module in self._modules)
        if not count:
            return []
        if self.target.kind == "cuda":
            made = [_cuda_note(code) for code in self._compiled] or [
                f"the library holds CUDA C for {self.target.accelerator.arch}, which the loading machine "  # type: ignore[union-attr]
                "compiles: neither NVRTC nor nvcc for it is installed here"
            ]
        else:
            made = [f"the library holds {kind} source, which the device's driver compiles when it is loaded"]
        return [*made, f"{count} {kind} kernels were not run at compile time"]

    def _keep(self, suffix: str, text: str) -> None:
        number = sum(name.endswith(f".{suffix}") for name in self.sources)
        self.sources[f"kernels{number or ''}.{suffix}"] = text


def _cuda_note(code: CudaCode) -> str:
    """Say what the compiler made: architecture, registers, and which kernels spill."""
    most = max((kernel.registers for kernel in code.usage), default=0)
    spilled = [f"{kernel.name} ({kernel.spilled} bytes)" for kernel in code.usage if kernel.spilled]
    version = code.compiler.split()[-1]
    return (
        f"machine code for {code.arch} and PTX by {code.compiler} (needs a driver for CUDA {version} or "
        f"later); at most {most} registers a thread; registers spill in: {', '.join(spilled) or 'no kernel'}"
    )
