"""What this machine is: its descriptor for the target ``host``, and the code it can run.

Everything is read from the system (``/proc`` and ``/sys`` on Linux, sysctl on macOS); only the name of
the CPU comes from LLVM, which imports TVM. Functions that read files take the folder that stands for
``/``, so that tests can show them other machines.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.support.errors import TargetError
from compiler.target_isa import (
    ARCHITECTURES,
    arch_of,
    features_in_cpuinfo,
    features_in_sysctl,
    os_of,
    vector_of,
    vocabulary,
)

ROOT = Path("/")


@dataclass(frozen=True)
class Machine:
    """What code can run here: architecture and system by Kiln's names, features by LLVM's.

    `features` is ``None`` where the system does not tell.
    """

    arch: str
    os: str
    features: frozenset[str] | None

    def why_not(self, triple: str, features: Iterable[str]) -> str | None:
        """Return why code for `triple` that uses `features` cannot run here, ``None`` if it can."""
        arch, system = arch_of(triple), os_of(triple)
        if arch != self.arch:
            return f"it is built for {arch} ({triple}), this machine is {self.arch}"
        if system not in (self.os, "none"):
            return f"it is built for {system} ({triple}), this machine runs {self.os}"
        if self.features is None:
            return None
        missing = sorted((set(features) & vocabulary(arch)) - self.features)
        if missing:
            return f"it needs CPU features that this machine lacks: {', '.join(missing)}"
        return None


@functools.lru_cache(maxsize=1)
def this_machine() -> Machine:
    """Return what this process can run: a 32-bit Python on a 64-bit kernel counts as 32-bit."""
    arch = arch_of(platform.machine() or "unknown")
    if struct.calcsize("P") == 4:
        arch = {"aarch64": "arm", "x86_64": "i686"}.get(arch, arch)
    system = _system()
    return Machine(arch, system, _features(arch, system))


def _system() -> str:
    if hasattr(sys, "getandroidapilevel") or "ANDROID_ROOT" in os.environ:
        return "android"
    return {"linux": "linux", "darwin": "macos", "win32": "windows"}.get(sys.platform, sys.platform)


def _features(arch: str, system: str, root: Path = ROOT) -> frozenset[str] | None:
    if system == "macos":
        text = _sysctl("hw.optional", "machdep.cpu")
        return features_in_sysctl(arch, text) if text else None
    text = _read(root / "proc/cpuinfo")
    return features_in_cpuinfo(arch, text) if text else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _sysctl(*names: str) -> str:
    """Return what sysctl prints for `names`, ``key: value`` a line; "" where there is none."""
    try:
        return subprocess.run(["sysctl", *names], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


# -- cores -------------------------------------------------------------------------------------------


def usable_cores(root: Path = ROOT) -> int:
    """Return how many physical cores this process may keep busy.

    Counted are the cores in the process's affinity mask, hyper-threads once, only the big ones where
    cores differ, and no more than the CPU quota of its control group pays for.
    """
    cpus = _affinity()
    if cpus is None:
        return _macos_cores() or os.cpu_count() or 1
    big = _big(cpus, root)
    cores = len({_siblings(cpu, root) for cpu in big})
    quota = _quota(root)
    return max(1, cores if quota is None else min(cores, int(quota)))


def _affinity() -> frozenset[int] | None:
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _macos_cores() -> int:
    for name in ("hw.perflevel0.physicalcpu", "hw.physicalcpu"):
        with contextlib.suppress(ValueError, IndexError):
            return int(_sysctl(name).split(":")[1])
    return 0


def _big(cpus: frozenset[int], root: Path) -> frozenset[int]:
    """Return the CPUs of at least 80 % of the fastest one's capacity (Linux' scale, up to 1024)."""
    capacity = {cpu: _read(root / f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity") for cpu in cpus}
    if not all(text.isdigit() for text in capacity.values()):
        return cpus
    least = 0.8 * max(int(text) for text in capacity.values())
    return frozenset(cpu for cpu, text in capacity.items() if int(text) >= least)


def _siblings(cpu: int, root: Path) -> str:
    """Return a name that the hyper-threads of one core share."""
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    return _read(topology / "core_cpus_list") or _read(topology / "thread_siblings_list") or str(cpu)


def _quota(root: Path) -> float | None:
    """Return the CPUs that the control group may use on average, ``None`` without a limit.

    The limits of all enclosing groups hold, so the smallest counts.
    """
    limits = []
    for folder in _groups(root, "cpu"):
        words = _read(folder / "cpu.max").split()
        if not words:
            words = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
        with contextlib.suppress(ValueError, ZeroDivisionError):
            limits.append(int(words[0]) / int(words[1]))
    return min((limit for limit in limits if limit > 0), default=None)


def _groups(root: Path, controller: str) -> list[Path]:
    """Return the folders of this process's control group for `controller` and of its ancestors."""
    folders = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        # The first version of control groups has a folder a controller, some under a joint name.
        bases = [
            root / "sys/fs/cgroup" / name for name in dict.fromkeys([controllers, controllers and controller])
        ]
        parts = Path(path.lstrip("/")).parts
        folders += [base.joinpath(*parts[:depth]) for base in bases for depth in range(len(parts), -1, -1)]
    return folders or [root / "sys/fs/cgroup"]


# -- caches and memory -------------------------------------------------------------------------------

_UNKNOWN_CACHES = {"l1d": 32 << 10, "l2": 256 << 10, "l3": 0, "l2_cores": 1, "line": 64}


def caches(root: Path = ROOT) -> tuple[dict[str, int], str]:
    """Return the fields of `compiler.target.Caches` for this machine, and where they come from."""
    if _system() == "macos":
        return _macos_caches(_sysctl("hw")), "sysctl hw"
    cpus = _affinity() or frozenset({0})
    cpu = min(_big(cpus, root))
    found = {"l2": 0, "l3": 0, "l2_cores": 1, "line": 64}
    for index in sorted((root / f"sys/devices/system/cpu/cpu{cpu}/cache").glob("index*")):
        level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
        if kind == "Instruction" or level not in ("1", "2", "3") or not size[:-1].isdigit():
            continue
        found["l1d" if level == "1" else f"l{level}"] = (
            int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20}[size[-1]]
        )
        if level == "2":
            sharing = _cpu_list(_read(index / "shared_cpu_list"))
            found["l2_cores"] = max(1, len({_siblings(other, root) for other in sharing}))
        if _read(index / "coherency_line_size").isdigit():
            found["line"] = int(_read(index / "coherency_line_size"))
    if "l1d" not in found:
        return _UNKNOWN_CACHES, "assumed: the system does not tell"
    return found, "/sys/devices/system/cpu"


def _macos_caches(text: str) -> dict[str, int]:
    pairs = {
        key: int(value)
        for key, _, value in (line.partition(": ") for line in text.splitlines())
        if value.isdigit()
    }

    def first(*keys: str) -> int:
        return next((pairs[key] for key in keys if pairs.get(key)), 0)

    return {
        "l1d": first("hw.perflevel0.l1dcachesize", "hw.l1dcachesize") or _UNKNOWN_CACHES["l1d"],
        "l2": first("hw.perflevel0.l2cachesize", "hw.l2cachesize"),
        "l3": first("hw.perflevel0.l3cachesize", "hw.l3cachesize"),
        "l2_cores": first("hw.perflevel0.cpusperl2") or 1,
        "line": first("hw.cachelinesize") or 64,
    }


def _cpu_list(text: str) -> list[int]:
    """Return the numbers of a list such as ``0-3,8``."""
    numbers: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        if low.isdigit():
            numbers += range(int(low), int(high or low) + 1)
    return numbers


def memory(root: Path = ROOT) -> int:
    """Return the bytes of memory this process may use: the machine's, or its control group's limit."""
    import psutil

    sizes = [int(psutil.virtual_memory().total)]
    for folder in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(ValueError):
                sizes.append(int(_read(folder / name)))
    return min(size for size in sizes if size > 0)


# -- the descriptor ----------------------------------------------------------------------------------


def detect(root: Path = ROOT, *, ask_llvm: bool = True) -> dict[str, Any]:
    """Return this machine's descriptor, as a descriptor file would hold it.

    LLVM is asked for its name of the CPU, which imports TVM and takes seconds; without `ask_llvm`, or
    without TVM (on a board), the CPU is a generic one.

    Raises:
        TargetError: Kiln has no code generator for this machine.
    """
    machine = this_machine()
    if machine.arch not in ARCHITECTURES:
        raise TargetError(
            f"expected a machine of one of {', '.join(ARCHITECTURES)}, this one is '{machine.arch}': "
            "give --target"
        )
    cpu, source = _llvm_cpu(machine.arch) if ask_llvm else _generic_cpu(machine.arch)
    features = machine.features or frozenset()
    if ask_llvm:
        features = _settled(_triple(machine), cpu, features)
    bits, registers = vector_of(machine.arch, features)
    cache, cache_source = caches(root)
    how = "sysctl hw.optional" if machine.os == "macos" else "/proc/cpuinfo"
    descriptor: dict[str, Any] = {
        "name": "host",
        "kind": "cpu",
        "description": f"this machine: {_model(machine, root)}",
        "triple": _triple(machine),
        "cpu": cpu,
        "features": sorted(features),
        "cores": usable_cores(root),
        "vector": {"bits": bits, "registers": registers},
        "caches": cache,
        "memory": memory(root),
        "sources": {
            "cpu": source,
            "features": how,
            "cores": "detected: affinity, topology, control group",
            "vector": f"the widest of the features in {how}",
            "caches": cache_source,
            "memory": "detected: installed, control group",
        },
    }
    if machine.arch == "riscv64":
        descriptor["abi"] = "lp64d"
    if zig := _zig(machine):
        descriptor["toolchain"] = {"zig": zig}
    return descriptor


def _triple(machine: Machine) -> str:
    arch = {"arm": "armv7"}.get(machine.arch, machine.arch)
    system = {
        "linux": "linux-gnueabihf" if machine.arch == "arm" else "linux-gnu",
        "android": "linux-androideabi" if machine.arch == "arm" else "linux-android",
        "macos": "apple-macos11.0",
        "windows": "pc-windows-msvc",
    }
    return f"{arch}-{system.get(machine.os, 'unknown-none')}"


def _zig(machine: Machine) -> str | None:
    """Return zig's name of this machine, with its C library's version; ``None`` where zig has none."""
    if machine.os == "macos":
        return f"{machine.arch}-macos.11.0"
    library, version = platform.libc_ver()
    if machine.os != "linux" or library != "glibc":
        return None
    return f"{machine.arch}-linux-{'gnueabihf' if machine.arch == 'arm' else 'gnu'}.{version}"


def _llvm_cpu(arch: str) -> tuple[str, str]:
    """Return LLVM's name of this CPU, and where it comes from."""
    try:
        from tvm.target import codegen

        name = str(codegen.llvm_get_system_cpu())
    except Exception:
        name = ""
    if name and name != "generic":
        return name, "LLVM's detection of the host"
    return _generic_cpu(arch)


def _settled(triple: str, cpu: str, features: frozenset[str]) -> frozenset[str]:
    """Return `features` without contradictions, which some virtual machines show; as they are without TVM."""
    try:
        from compiler.target_tvm import settle

        return settle(triple, cpu, features)
    except ImportError:
        return features


def _generic_cpu(arch: str) -> tuple[str, str]:
    """Return LLVM's name of a CPU that has no more than `arch` demands; the features say the rest."""
    generic = {"x86_64": "x86-64", "riscv64": "generic-rv64"}.get(arch, "generic")
    return generic, "assumed: LLVM was not asked, or does not know this CPU"


def _model(machine: Machine, root: Path) -> str:
    """Return the CPU's name as its maker writes it, for people."""
    if machine.os == "macos":
        return _sysctl("machdep.cpu.brand_string").partition(": ")[2].strip() or machine.arch
    for line in _read(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("model name", "hardware", "uarch") and value.strip():
            return value.strip()
    return _read(root / "proc/device-tree/model").rstrip("\0") or machine.arch
