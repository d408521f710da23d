"""Libraries for other machines: the right format and C library; for a Raspberry Pi 4, the right numbers."""

import importlib.metadata
import os
import platform
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi

from compiler.build.toolchain import linker_for, run_tool
from compiler.build.tvm_runtime import fetch_runtime
from compiler.schedule.dot_product import instruction
from compiler.support.errors import BuildError
from compiler.target import load as load_target
from tests.build.networks import (
    QUANTUM,
    attention,
    coded_net,
    conv_net,
    dynamic_net,
    quantized_net,
    short_net,
)
from tests.conftest import absent, needs

ELF = {"x86_64": 62, "aarch64": 183, "arm": 40, "riscv64": 243}
HARD_FLOAT = {"arm": 0x400, "riscv64": 0x4}
"""Bits of an ELF header's flags: VFP arguments on Arm, double-precision arguments on RISC-V."""

SYSROOT = Path("/usr/aarch64-linux-gnu")
PACKAGES = "apt-get install qemu-user-static libc6-arm64-cross libstdc++6-arm64-cross libgcc-s1-arm64-cross"


@dataclass(frozen=True)
class Elf:
    """What an ELF header says."""

    bits: int
    machine: int
    flags: int


def elf(path):
    data = path.read_bytes()[:64]
    assert data[:4] == b"\x7fELF"
    bits = {1: 32, 2: 64}[data[4]]
    (flags,) = struct.unpack_from("<I", data, 36 if bits == 32 else 48)
    return Elf(bits, *struct.unpack_from("<H", data, 18), flags)


def glibc_versions(path):
    found = re.findall(rb"GLIBC_(\d+)\.(\d+)", path.read_bytes())
    return [(int(major), int(minor)) for major, minor in found]


@pytest.mark.parametrize("name", ["rpi2", "rpi4", "riscv64", "x86-64-v2", "mali-g610"])
def test_library_is_for_the_targets_linux(tmp_path, name):
    target = load_target(name)
    built = conv_net().build(target, tmp_path)
    header = elf(built.library)
    assert header.machine == ELF[target.arch]
    assert header.bits == (32 if target.arch == "arm" else 64)
    wanted = HARD_FLOAT.get(target.arch, 0)
    assert header.flags & wanted == wanted
    assert all(version <= (2, 28) for version in glibc_versions(built.library))
    names = built.library.read_bytes()
    assert b"__tvm_ffi__library_bin\0" in names
    assert b"libc++" not in names
    assert b"libstdc++" not in names
    if target.kind == "cpu" and target.arch != platform.machine():
        assert f"({target.triple}) was linked, but not run" in built.notes[0]


def test_android_library_leaves_the_c_library_open(tmp_path):
    built = conv_net().build(load_target("adreno-740"), tmp_path)
    assert elf(built.library).machine == ELF["aarch64"]
    assert b"libc.so" not in built.library.read_bytes()
    assert "linked without a C library" in built.notes[-1]
    assert "__kernel void" in built.sources["kernels.cl"]


def test_mac_library(tmp_path):
    built = conv_net().build(load_target("apple-m1"), tmp_path)
    magic, cpu, _, kind = struct.unpack_from("<4I", built.library.read_bytes())
    assert (magic, cpu, kind) == (0xFEEDFACF, 0x0100000C, 6)  # 64-bit, arm64, dynamic library
    assert "kernel void" in built.sources["kernels.metal"]
    assert built.notes[-1].endswith("Metal kernels were not run at compile time")


@pytest.fixture(scope="session")
def runtime(request):
    """TVM's runtime for aarch64, from the wheels of the versions that are installed."""
    folder = Path(request.config.cache.mkdir("tvm-aarch64"))
    versions = [f"{name}=={importlib.metadata.version(name)}" for name in ("apache-tvm", "apache-tvm-ffi")]
    place = folder / re.sub(r"[^\w.]+", "-", "-".join(versions))
    if not place.exists():
        _download(place)
    return place


def _download(place):
    scratch = place.with_name(f"{place.name}.{os.getpid()}")
    scratch.mkdir()
    try:
        fetch_runtime(load_target("rpi4"), scratch)
    except BuildError as error:
        absent(str(error))
    # Tests may run side by side: the first one to finish has its folder kept.
    try:
        scratch.rename(place)
    except OSError:
        shutil.rmtree(scratch)


def emulated(target, runtime, folder, library, x):
    """Return the first output of `library` for `x`, run by TVM's virtual machine under the emulator."""
    native = platform.machine() == target.arch
    if not native:
        needs(target.toolchain.emulator[0], f"{SYSROOT}/lib/libstdc++.so.6", why=PACKAGES)
    program = folder / "run_model"
    include = Path(tvm_ffi.__file__).parent / "include"
    words = [*linker_for(target).command, "-O1", "-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined"]
    words += [f"-I{include}", "-o", str(program), str(Path(__file__).with_name("run_model.c"))]
    run_tool([*words, str(runtime / "libtvm_runtime.so"), str(runtime / "libtvm_ffi.so")], folder)
    (folder / "input").write_bytes(x.tobytes())
    search = f"{runtime}:{SYSROOT}/lib"
    settings = {"TVM_NUM_THREADS": "2", "LD_LIBRARY_PATH": search}
    emulator = [*target.toolchain.emulator, "-L", str(SYSROOT)]
    for name, value in settings.items():
        emulator += ["-E", f"{name}={value}"]
    arguments = [str(program), str(library), str(folder / "input"), str(folder / "output")]
    done = subprocess.run(
        [*([] if native else emulator), *arguments, *map(str, x.shape)],
        capture_output=True,
        text=True,
        env={**os.environ, **settings} if native else None,
    )
    assert done.returncode == 0, done.stderr
    return np.frombuffer((folder / "output").read_bytes(), np.float32)


@pytest.mark.parametrize("network", [conv_net, attention, coded_net])
def test_raspberry_pi_library_computes_what_pytorch_does(runtime, tmp_path, network):
    target, case = load_target("rpi4"), network()
    built = case.build(target, tmp_path)
    output = emulated(target, runtime, tmp_path, built.library, case.input)
    np.testing.assert_allclose(output.reshape(case.output.shape), case.output, rtol=1e-4, atol=1e-5)


def _armv8(name):
    """A board, or a CPU that has both dot products of later ones: of bytes of two signs and of bfloat16."""
    if name != "armv8.6":
        return load_target(name)
    board = load_target("rpi5")
    toolchain = replace(board.toolchain, emulator=("qemu-aarch64-static", "-cpu", "max"))
    features = (*board.features, "i8mm", "bf16")
    return replace(board, name=name, cpu="generic", features=features, toolchain=toolchain)


@pytest.mark.parametrize("name", ["rpi4", "rpi5", "armv8.6"])
def test_integer_layers_compute_on_arm_what_the_quantized_graph_says(runtime, tmp_path, name):
    target, case = _armv8(name), quantized_net()
    built = case.build(target, tmp_path)
    output = emulated(target, runtime, tmp_path, built.library, case.input).reshape(case.output.shape)
    # Where a value lies between two bytes, either may be right.
    assert abs(output - case.output).max() <= 1.01 * QUANTUM
    assert (abs(output - case.output) > 0.5 * QUANTUM).mean() < 0.1
    assert len(np.unique(case.output)) > 10


def test_arm_s_own_dot_products_are_used():
    target = _armv8("armv8.6")
    assert (instruction(target, "uint8"), instruction(target, "bfloat16")) == ("usdot", "bfdot")


@pytest.mark.parametrize("name", ["rpi5", "armv8.6"])
@pytest.mark.parametrize("network", [short_net, dynamic_net])
def test_layers_rounded_to_short_floats_or_at_run_time_on_arm(runtime, tmp_path, name, network):
    target, case = _armv8(name), network()
    output = emulated(target, runtime, tmp_path, case.build(target, tmp_path).library, case.input)
    error = abs(output.reshape(case.output.shape) - case.output)
    # A value between two of bfloat16, or between two bytes, may be rounded to either.
    assert error.max() <= 0.02 * abs(case.output).max()
    assert np.sqrt((error**2).mean()) <= 0.004 * np.sqrt((case.output**2).mean())
