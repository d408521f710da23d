"""CUDA C to machine code, on a machine that needs neither a GPU nor a CUDA toolkit.

NVRTC (a package that torch brings on x86-64) is asked first, ``nvcc`` second. Both give a cubin, machine
code for one architecture, and PTX, which a driver compiles for any later one; a fat binary holds both.
"""

from __future__ import annotations

import importlib
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.build.nvrtc_headers import headers
from compiler.build.toolchain import run_tool
from compiler.support.errors import BuildError

_USAGE = re.compile(
    r"Compiling entry function '(?P<name>\w+)'"
    r"|(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r"|Used (?P<registers>\d+) registers"
)
_HEADER = 64
"""Bytes before each image of a fat binary, without its options."""

_VERSION = re.compile(r"^\.version\s+(\d+)\.(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class KernelUsage:
    """What one kernel takes of a multiprocessor: `registers` a thread; `spilled` bytes a thread."""

    name: str
    registers: int
    spilled: int


@dataclass(frozen=True)
class CudaCode:
    """Compiled device code; `compiler` says by what, with its CUDA version."""

    arch: str
    cubin: bytes
    ptx: str
    compiler: str
    usage: tuple[KernelUsage, ...]


def compile_cuda(source: str, arch: str, folder: Path) -> CudaCode | None:
    """Return the machine code and PTX of CUDA C for `arch` (``sm_87``); ``None`` without a compiler for it.

    Raises:
        BuildError: the compiler rejects the source.
    """
    nvrtc = _nvrtc()
    if nvrtc is not None and _capability(arch) in _checked(nvrtc, nvrtc.nvrtcGetSupportedArchs()):
        return _by_nvrtc(nvrtc, source, arch)
    if nvcc := shutil.which("nvcc"):
        return _by_nvcc(nvcc, source, arch, folder)
    return None


def fat_binary(code: CudaCode) -> bytes:
    """Return a fat binary with the cubin and the PTX of `code`, not compressed.

    The driver takes the cubin on GPUs of its architecture, and compiles the PTX on later ones. The layout
    is the one that NVIDIA's ``fatbinary`` writes: a header of 16 bytes, then a header before each image,
    which is padded to 8 bytes.
    """
    capability = _capability(code.arch)
    version = _VERSION.search(code.ptx)
    if version is None:
        raise BuildError("expected PTX with a .version line from the CUDA compiler, got none")
    minor, major = int(version[2]), int(version[1])
    images = _image(2, code.cubin, capability, 8, 1) + _image(1, code.ptx.encode(), capability, minor, major)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(images)) + images


def _image(kind: int, data: bytes, capability: int, minor: int, major: int) -> bytes:
    """Return one image: `kind` is 1 for PTX, 2 for a cubin; minor and major are its format's version."""
    options = b""
    if kind == 1:
        # PTX is text that ends in a null byte. Where its compiler options are must be said, though it has
        # none: an offset to an empty string.
        data += b"\0"
        options = struct.pack("<Q8x", _HEADER + 8)
    data += bytes(-len(data) % 8)
    return (
        struct.pack(
            "<HHIQIIHHIIIQQQ",
            kind,
            0x101,
            _HEADER + len(options),
            len(data),
            0,  # not compressed
            _HEADER if options else 0,
            minor,
            major,
            capability,
            0,  # no name
            0,
            0x11,  # 64-bit code, built on Linux
            0,
            0,
        )
        + options
        + data
    )


def _nvrtc() -> Any | None:
    """Return the bindings of NVRTC if they and the library are there."""
    try:
        nvrtc = importlib.import_module("cuda.bindings.nvrtc")
        nvrtc.nvrtcVersion()
    except Exception:  # a missing library is reported by many kinds of error
        return None
    return nvrtc


def _by_nvrtc(nvrtc: Any, source: str, arch: str) -> CudaCode:
    texts = headers(_capability(arch))
    program = _checked(
        nvrtc,
        nvrtc.nvrtcCreateProgram(
            source.encode(),
            b"kernels.cu",
            len(texts),
            [text.encode() for text in texts.values()],
            [name.encode() for name in texts],
        ),
    )
    options = [f"--gpu-architecture={arch}", "--std=c++17", "-default-device", "--ptxas-options=-v"]
    options += [f"--include-path={folder}" for folder in _include_folders()]
    try:
        status = nvrtc.nvrtcCompileProgram(program, len(options), [word.encode() for word in options])[0]
        log = _text(nvrtc, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            errors = [line for line in log.splitlines() if "error" in line] or [log.strip()]
            raise BuildError(f"NVRTC cannot compile the CUDA kernels for {arch}: {' | '.join(errors[:3])}")
        ptx = _text(nvrtc, nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
        size = _checked(nvrtc, nvrtc.nvrtcGetCUBINSize(program))
        cubin = bytearray(size)
        _checked(nvrtc, nvrtc.nvrtcGetCUBIN(program, cubin))
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    _, major, minor = nvrtc.nvrtcVersion()
    return CudaCode(arch, bytes(cubin), ptx, f"NVRTC {major}.{minor}", read_usage(log))


def _text(nvrtc: Any, size_of: Any, get: Any, program: Any) -> str:
    data = bytearray(_checked(nvrtc, size_of(program)))
    _checked(nvrtc, get(program, data))
    return data.decode(errors="replace").rstrip("\0")


def _checked(nvrtc: Any, result: tuple[Any, ...]) -> Any:
    status, *values = result
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise BuildError(f"NVRTC failed: {status.name}")
    return values[0] if len(values) == 1 else values


def _include_folders() -> list[str]:
    """Return where NVIDIA's headers (``cuda_fp16.h``) are, if anywhere: most kernels need none."""
    try:
        found = importlib.import_module("cuda.pathfinder").find_nvidia_header_directory("cudart")
    except Exception:  # an old version, or nothing installed
        return []
    return [found] if found else []


def _by_nvcc(nvcc: str, source: str, arch: str, folder: Path) -> CudaCode:
    (folder / "kernels.cu").write_text(source)
    common = [nvcc, f"-arch={arch}", "-std=c++17", "kernels.cu"]
    log = run_tool([*common, "-cubin", "-Xptxas=-v", "-o", "kernels.cubin"], folder)
    run_tool([*common, "-ptx", "-o", "kernels.ptx"], folder)
    version = re.search(r"release (\d+\.\d+)", run_tool([nvcc, "--version"], folder))
    return CudaCode(
        arch,
        (folder / "kernels.cubin").read_bytes(),
        (folder / "kernels.ptx").read_text(),
        f"nvcc {version[1]}" if version else "nvcc",
        read_usage(log),
    )


def read_usage(log: str) -> tuple[KernelUsage, ...]:
    """Return what ``ptxas -v`` says of each kernel, in its order."""
    found: list[KernelUsage] = []
    name, spilled = "", 0
    for match in _USAGE.finditer(log):
        if match["name"]:
            name, spilled = match["name"], 0
        elif match["stores"]:
            spilled = max(int(match["stores"]), int(match["loads"]))
        elif name:
            found.append(KernelUsage(name, int(match["registers"]), spilled))
            name = ""
    return tuple(found)


def _capability(arch: str) -> int:
    """Return 87 for ``sm_87``; a suffix as in ``sm_90a`` is left out."""
    match = re.fullmatch(r"sm_(\d+)[af]?", arch)
    if match is None:
        raise BuildError(f"expected a CUDA architecture such as 'sm_87', got '{arch}'")
    return int(match[1])
