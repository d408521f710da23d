"""CUDA kernels become machine code and PTX; NVIDIA's own tools say what is in them."""

import platform
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from compiler.build import cuda
from compiler.build.cuda import CudaCode, KernelUsage, compile_cuda, fat_binary, read_usage
from compiler.support.errors import BuildError
from compiler.target import load as load_target
from tests.build.networks import attention, conv_net
from tests.conftest import absent

SOURCE = """
extern "C" __global__ void __launch_bounds__(64) twice(float* __restrict__ x) {
  x[blockIdx.x * 64 + threadIdx.x] *= 2.0f;
}
"""


@pytest.fixture
def nvrtc():
    """NVRTC comes with torch, on x86-64 only."""
    if cuda._nvrtc() is None:
        if platform.machine() == "x86_64":
            absent("needs NVRTC: pip install cuda-bindings nvidia-cuda-nvrtc")
        pytest.skip("NVRTC comes with torch on x86-64 only")


def cuobjdump(folder, data, *words):
    """Return what NVIDIA's cuobjdump says of a fat binary; it comes with triton, which comes with torch."""
    import importlib.util

    triton = importlib.util.find_spec("triton")
    place = Path(triton.origin).parent / "backends/nvidia/bin/cuobjdump" if triton else None
    tool = str(place) if place and place.exists() else shutil.which("cuobjdump")
    if tool is None:
        absent("needs cuobjdump: pip install triton")
    file = folder / "kernels.fatbin"
    file.write_bytes(data)
    done = subprocess.run([tool, *words, str(file)], capture_output=True, text=True, check=True)
    return done.stdout


def embedded(library):
    """Return the fat binary inside a library."""
    data = library.read_bytes()
    start = data.index(struct.pack("<IHH", 0xBA55ED50, 1, 16))
    return data[start : start + 16 + struct.unpack_from("<Q", data, start + 8)[0]]


@pytest.mark.parametrize("name", ["jetson-orin", "rtx-4090", "h100"])
def test_library_holds_machine_code_and_ptx(nvrtc, tmp_path, name):
    target = load_target(name)
    arch = target.accelerator.arch
    built = conv_net().build(target, tmp_path)
    data = embedded(built.library)
    listed = cuobjdump(tmp_path, data, "-lelf", "-lptx")
    assert f".{arch}.cubin" in listed
    assert f".{arch}.ptx" in listed
    machine_code = cuobjdump(tmp_path, data, "-elf")
    names = [
        word for word in built.sources["kernels.cu"].replace("(", " ").split() if word.endswith("_kernel")
    ]
    assert len(set(names)) >= 5
    for kernel in set(names):
        assert f".text.{kernel}" in machine_code
        assert f".entry {kernel}(" in built.sources["kernels.ptx"]
    assert f"machine code for {arch} and PTX" in built.notes[0]
    assert "not run" in built.notes[1]


def test_kernels_of_a_transformer_compile_and_fit_the_device(nvrtc, tmp_path):
    # Its mask is a Select of vectors, which TVM writes in a way that no CUDA compiler takes.
    target = load_target("jetson-orin")
    source = attention().build(target, tmp_path).sources["kernels.cu"]
    code = compile_cuda(source, "sm_87", tmp_path)
    assert code is not None
    for kernel in code.usage:
        start = source.index(f") {kernel.name}(")
        threads = int(source[source.rindex("(", 0, start) + 1 : start])
        assert kernel.registers * threads <= target.accelerator.registers_per_block
        assert kernel.registers <= 255
        assert kernel.spilled == 0


def test_compiled_code_says_what_it_takes(nvrtc, tmp_path):
    code = compile_cuda(SOURCE, "sm_90", tmp_path)
    assert code is not None
    assert code.cubin.startswith(b"\x7fELF")
    assert ".target sm_90" in code.ptx
    (usage,) = code.usage
    assert (usage.name, usage.spilled) == ("twice", 0)
    assert 1 <= usage.registers <= 32


@pytest.mark.parametrize("header", ["cuda_fp16.h", "cuda_bf16.h", "cuda_fp8.h"])
def test_half_precision_headers_need_no_toolkit(nvrtc, tmp_path, header):
    include = next((Path(folder) for folder in cuda._include_folders()), None)
    if include is None or not (include / header).exists():
        absent("needs the headers of nvidia-cuda-runtime")
    prelude = "#include <cuda/std/cstdint>\n#include <cuda/std/type_traits>\n"
    assert compile_cuda(f"{prelude}#include <{header}>\n{SOURCE}", "sm_87", tmp_path) is not None


def test_type_traits_are_right(nvrtc, tmp_path):
    checks = [
        "sizeof(cuda::std::int64_t) == 8 && sizeof(cuda::std::uint16_t) == 2",
        "cuda::std::is_same_v<int, int> && !cuda::std::is_same<int, float>::value",
        "cuda::std::is_integral<const unsigned char>::value && !cuda::std::is_integral<float>::value",
        "cuda::std::is_signed<float>::value && cuda::std::is_signed<int>::value",
        "!cuda::std::is_signed<unsigned>::value && cuda::std::is_unsigned<bool>::value",
        "!cuda::std::is_unsigned<double>::value && cuda::std::is_floating_point<double>::value",
        "cuda::std::is_same_v<cuda::std::conditional<(1 < 2), int, float>::type, int>",
        "NV_PROVIDES_SM_80 && !NV_PROVIDES_SM_90 && NV_IS_EXACTLY_SM_87",
    ]
    asserts = "\n".join(f'static_assert({check}, "{check.replace(chr(34), "")}");' for check in checks)
    picks = "NV_IF_ELSE_TARGET(NV_IS_DEVICE, (static_assert(true);), (static_assert(false);))"
    picks += "\nNV_IF_TARGET(NV_PROVIDES_SM_90, (static_assert(false);))"
    includes = "#include <cuda/std/cstdint>\n#include <cuda/std/type_traits>\n#include <nv/target>\n"
    assert compile_cuda(f"{includes}{asserts}\n{picks}\n{SOURCE}", "sm_87", tmp_path) is not None


def test_rejected_source_is_quoted(nvrtc, tmp_path):
    with pytest.raises(BuildError, match=r"NVRTC cannot compile the CUDA kernels for sm_87: .*undeclared"):
        compile_cuda('extern "C" __global__ void k() { undeclared = 1; }', "sm_87", tmp_path)


def test_without_a_compiler_the_library_keeps_cuda_c(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda, "_nvrtc", lambda: None)
    monkeypatch.setattr(cuda.shutil, "which", lambda name: None)
    built = conv_net().build(load_target("jetson-orin"), tmp_path)
    assert "kernels.ptx" not in built.sources
    assert built.sources["kernels.cu"].encode() in built.library.read_bytes()
    assert "the library holds CUDA C for sm_87" in built.notes[0]


def test_nvcc_stands_in_for_nvrtc(monkeypatch, tmp_path):
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(
        """#!/bin/sh
case "$*" in
*--version*) echo "Cuda compilation tools, release 12.6, V12.6.85" ;;
*-cubin*-arch=sm_87*|*-arch=sm_87*-cubin*) cp kernels.cu kernels.cubin
    echo "ptxas info    : Compiling entry function 'twice' for 'sm_87'"
    echo "ptxas info    : Used 12 registers, 360 bytes cmem[0]" ;;
*-arch=sm_87*-ptx*) printf '.version 8.5\\n.target sm_87\\n' > kernels.ptx ;;
*) exit 9 ;;
esac
"""
    )
    nvcc.chmod(0o755)
    monkeypatch.setattr(cuda, "_nvrtc", lambda: None)
    monkeypatch.setenv("PATH", str(nvcc.parent), prepend=":")
    code = compile_cuda(SOURCE, "sm_87", tmp_path)
    assert code == CudaCode(
        "sm_87",
        SOURCE.encode(),
        ".version 8.5\n.target sm_87\n",
        "nvcc 12.6",
        (KernelUsage("twice", 12, 0),),
    )


def test_fat_binary_has_the_layout_of_nvidias():
    # The bytes that NVIDIA's `fatbinary --compress=false` of CUDA 13.0 writes before images of sm_87.
    cubin = b"\x7fELF and its code"
    cubin += bytes(-len(cubin) % 8)
    ptx = ".version 9.0\n.target sm_87\n"
    data = fat_binary(CudaCode("sm_87", cubin, ptx, "NVRTC 13.0", ()))
    assert data[:16] == bytes.fromhex("50ed55ba01001000") + struct.pack("<Q", len(data) - 16)
    before_cubin = "02000101 40000000 1800000000000000 00000000 00000000 08000100 57000000"
    before_cubin += "00000000 00000000 1100000000000000" + "00" * 16
    assert data[16:80] == bytes.fromhex(before_cubin)
    assert data[80:104] == cubin
    # PTX has options: 16 bytes more, which say that there are none.
    before_ptx = "01000101 50000000 2000000000000000 00000000 40000000 00000900 57000000"
    before_ptx += "00000000 00000000 1100000000000000" + "00" * 16 + "4800000000000000" + "00" * 8
    assert data[104:184] == bytes.fromhex(before_ptx)
    assert data[184:] == ptx.encode().ljust(32, b"\0")


@pytest.mark.parametrize("arch", ["compute_87", "87", "sm_", "gfx90a"])
def test_wrong_architecture_is_refused(arch, tmp_path):
    with pytest.raises(BuildError, match="expected a CUDA architecture such as 'sm_87'"):
        cuda._capability(arch)


def test_spills_are_read():
    log = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first_kernel' for 'sm_87'
ptxas info    : Function properties for first_kernel
    16 bytes stack frame, 8 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 376 bytes cmem[0]
ptxas info    : Compiling entry function 'second' for 'sm_87'
ptxas info    : Function properties for second
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, 360 bytes cmem[0]
"""
    assert read_usage(log) == (KernelUsage("first_kernel", 255, 24), KernelUsage("second", 10, 0))
