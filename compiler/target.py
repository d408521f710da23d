"""Target: one device, read from targets/*.yaml or from a user's own file.

A descriptor is data: the CPU (of the board, or of the machine that drives the accelerator), its vector
unit and caches, the accelerator and its limits, the tools that build for it and how it is reached. The
name ``host`` stands for the machine this runs on and is detected.

`compiler.target_schema` reads and validates descriptors, `compiler.target_detect` looks at this machine,
`compiler.target_tvm` turns a `Target` into TVM's. None of them is imported before it is needed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen

from compiler.support.errors import TargetError, did_you_mean
from compiler.support.resources import data_folder
from compiler.target_isa import arch_of, os_of, vocabulary

HOST = "host"
"""The name of the machine that Kiln runs on."""

Count = Annotated[int, Ge(1), Le(1 << 20)]
Bytes = Annotated[int, Ge(0), Le(1 << 50)]
Name = Annotated[str, MinLen(1)]
Kind = Literal["cpu", "cuda", "opencl", "metal"]
_SCHEMA = {"extra": "forbid", "strict": True}  # for pydantic: compiler.target_schema validates these classes


@dataclass(frozen=True, kw_only=True)
class Vector:
    """The vector unit of one core: bits of one register, and how many registers there are.

    A CPU without vector instructions is described by its floating-point registers.
    """

    __pydantic_config__ = _SCHEMA

    bits: Annotated[int, Ge(32), Le(65536)]
    registers: Count


@dataclass(frozen=True, kw_only=True)
class Caches:
    """Data caches in bytes, 0 for one that does not exist.

    `l1d` belongs to one core; `l2` is one L2 cache, shared by `l2_cores` cores; `l3` is the last level,
    shared by all cores; `line` is the length of a cache line in bytes.
    """

    __pydantic_config__ = _SCHEMA

    l1d: Bytes
    l2: Bytes = 0
    l3: Bytes = 0
    l2_cores: Count = 1
    line: Count = 64


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """A GPU and its limits, in CUDA's words ("block" is a work-group, "warp" a sub-group, "shared" local).

    `arch` is what code is generated for: ``sm_87`` for CUDA; ``mali``, ``adreno`` or ``generic`` for
    OpenCL; the GPU family for Metal. Memory sizes are in bytes. `max_shared_memory_per_block` is what
    a kernel may declare; `max_dynamic_shared_memory_per_block` what it may ask for at launch. `units` are
    multiprocessors (compute units, cores), and the ``..._per_unit`` limits bound how many blocks one
    holds. ``None`` means that the vendor does not say.
    """

    __pydantic_config__ = _SCHEMA

    arch: Name
    max_threads_per_block: Count
    max_shared_memory_per_block: Bytes
    warp_size: Count
    units: Count
    registers_per_block: Count | None = None
    max_grid: tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)], Annotated[int, Ge(1)]] | None = None
    max_dynamic_shared_memory_per_block: Bytes | None = None
    shared_memory_per_unit: Bytes | None = None
    registers_per_unit: Count | None = None
    max_threads_per_unit: Count | None = None
    l2: Bytes | None = None
    memory: Bytes | None = None
    features: tuple[Name, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """What links a library for the device.

    `zig` is the ``-target`` of ``zig cc`` (a glibc version may follow: the oldest that the library runs
    with); `compiler` a command to use in its stead, as words; `flags` more words for either, such as
    ``-nostdlib`` where zig has no C library for the system; `emulator` a command that runs programs of
    the device here.
    """

    __pydantic_config__ = _SCHEMA

    zig: Name | None = None
    compiler: tuple[Name, ...] = ()
    flags: tuple[Name, ...] = ()
    emulator: tuple[Name, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Board:
    """How the device is reached: `transport` over the network, or the name `key` in a tracker.

    `folder` is where bundles are put on it; `serial` picks one of several devices that adb sees.
    """

    __pydantic_config__ = _SCHEMA

    transport: Literal["ssh", "rpc", "adb"]
    host: Name | None = None
    port: Annotated[int, Ge(1), Le(65535)] | None = None
    user: Name | None = None
    key: Name | None = None
    serial: Name | None = None
    folder: Name = "/tmp/kiln"


@dataclass(frozen=True, kw_only=True)
class Target:
    """One device.

    `triple`, `cpu` and `features` are LLVM's names for the CPU; on an accelerator's target they describe
    the CPU that drives it. `features` is complete: generated code uses the features of
    `compiler.target_isa.vocabulary` that are listed and no others, whatever LLVM thinks of `cpu`.
    `cores` are physical cores (the big ones where cores differ), `memory` is in bytes, `abi` is LLVM's
    name of a calling convention where the triple does not settle it. `sources` says where numbers come
    from, by dotted field (``caches.l1d``, or ``caches`` for all of them).
    """

    __pydantic_config__ = _SCHEMA

    name: Name
    kind: Kind = "cpu"
    description: str = ""
    triple: Name
    cpu: Name
    features: tuple[Name, ...] = ()
    abi: Name | None = None
    cores: Count
    vector: Vector
    caches: Caches
    memory: Annotated[int, Ge(1), Le(1 << 50)]
    accelerator: Accelerator | None = None
    toolchain: Toolchain = Toolchain()
    board: Board | None = None
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def arch(self) -> str:
        """The CPU architecture: ``x86_64``, ``aarch64``, ``arm`` or ``riscv64``."""
        return arch_of(self.triple)

    @property
    def os(self) -> str:
        """The operating system: ``linux``, ``android``, ``macos``, ``windows`` or ``none``."""
        return os_of(self.triple)

    def has(self, feature: str) -> bool:
        """Return whether the CPU has `feature`, by LLVM's name (``avx512vnni``, ``dotprod``)."""
        return feature in self.features

    def lanes(self, dtype: str) -> int:
        """Return how many elements of `dtype` fit one vector register of the CPU, at least 1.

        `dtype` is numpy's name; ``lanes("float32")`` is 16 with AVX-512 and 4 with NEON.
        """
        digits = "".join(c for c in dtype if c.isdigit())
        bits = 8 if dtype == "bool" or dtype.startswith("float8") else int(digits or 0)
        if bits == 0:
            raise TargetError(f"expected a dtype such as 'float32', got '{dtype}'")
        return max(1, self.vector.bits // bits)

    def tvm_target(self) -> Any:
        """Return the ``tvm.target.Target`` to generate code for this device.

        Raises:
            TargetError: LLVM knows no such triple, CPU or feature.
        """
        from compiler.target_tvm import tvm_target

        return tvm_target(self)


def names() -> list[str]:
    """Return the names of all shipped targets, ``host`` first."""
    return [HOST, *sorted(path.stem for path in data_folder("targets").glob("*.yaml"))]


def load(name_or_path: str | Path | Target = HOST) -> Target:
    """Return the target of that name, or of a descriptor file (a path that ends in .yaml or .yml).

    Raises:
        TargetError: there is no such target or file, or its descriptor is wrong.
    """
    if isinstance(name_or_path, Target):
        return name_or_path
    from compiler.target_schema import read

    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith((".yaml", ".yml")):
        return read(Path(name_or_path))
    if text == HOST:
        return _host()
    if text not in names():
        hint = did_you_mean(text, names()) or "; a descriptor of your own is a path that ends in .yaml"
        raise TargetError(f"unknown target '{text}'{hint} (`kiln targets` lists all)")
    return read(data_folder("targets") / f"{text}.yaml")


@functools.lru_cache(maxsize=1)
def _host() -> Target:
    from compiler.target_detect import detect
    from compiler.target_schema import validate

    return validate(detect(), "this machine")


def required_features(target: Target) -> tuple[str, ...]:
    """Return the CPU features that code for `target` may use, sorted: what a machine must have to run it."""
    return tuple(sorted(vocabulary(target.arch) & set(target.features)))


def why_not_here(triple: str, features: Iterable[str]) -> str | None:
    """Return why CPU code for `triple` with `features` cannot run on this machine, ``None`` if it can.

    `features` is what `required_features` gave. Needs neither TVM nor torch. On a system whose CPU
    features cannot be read, only architecture and operating system are compared.
    """
    from compiler.target_detect import this_machine

    return this_machine().why_not(triple, features)


def compatible(target: Target) -> str | None:
    """Return why CPU code for `target` cannot run on this machine, ``None`` if it can."""
    return why_not_here(target.triple, required_features(target))
