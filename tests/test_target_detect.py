"""Detection, on folders that stand for the / of other machines."""

import os
import platform
import sys

import pytest

from compiler import target_detect
from compiler.target_detect import Machine, caches, detect, memory, this_machine, usable_cores
from compiler.target_isa import (
    ARCHITECTURES,
    arch_of,
    features_in_cpuinfo,
    features_in_sysctl,
    os_of,
    vector_of,
    vocabulary,
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and /sys")


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.fixture
def affinity(monkeypatch):
    def pretend(*cpus):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cpus), raising=False)

    return pretend


# -- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("triple", "arch", "system"),
    [
        ("x86_64-linux-gnu", "x86_64", "linux"),
        ("AMD64", "x86_64", "none"),
        ("x86_64-conda-linux-gnu", "x86_64", "linux"),
        ("armv7-linux-gnueabihf", "arm", "linux"),
        ("armv7l", "arm", "none"),
        ("thumbv7neon-linux-gnueabihf", "arm", "linux"),
        ("arm64-apple-macos", "aarch64", "macos"),
        ("aarch64-linux-android", "aarch64", "android"),
        ("riscv64-linux-gnu", "riscv64", "linux"),
        ("x86_64-pc-windows-msvc", "x86_64", "windows"),
        ("sparc-sun-solaris", "sparc", "none"),
    ],
)
def test_triples(triple, arch, system):
    assert (arch_of(triple), os_of(triple)) == (arch, system)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_llvm_knows_every_word_of_the_vocabulary(arch):
    from compiler.target_tvm import _all_features

    triple = {"arm": "armv7-linux-gnueabihf"}.get(arch, f"{arch}-linux-gnu")
    words = set(vocabulary(arch))
    if arch == "riscv64":
        # LLVM lists none of its CPUs with these two, but they are extensions that it implements.
        words -= {"zvl512b", "zvl256b"} - _all_features(triple)
    assert words - _all_features(triple) == set()


# -- features ----------------------------------------------------------------------------------------


def test_x86_flags():
    text = (
        "processor\t: 0\nflags\t\t: fpu sse2 pni avx avx2 fma abm avx512f avx512_vnni sha_ni\nbogomips\t: 1\n"
    )
    assert features_in_cpuinfo("x86_64", text) == {
        "sse3",
        "avx",
        "avx2",
        "fma",
        "lzcnt",
        "avx512f",
        "avx512vnni",
    }


def test_only_what_all_cores_have_counts():
    text = "Features\t: fp asimd asimddp i8mm\n\nprocessor: 1\nFeatures\t: fp asimd asimddp\n"
    assert features_in_cpuinfo("aarch64", text) == {"fp-armv8", "neon", "dotprod"}


def test_arm_and_riscv():
    assert features_in_cpuinfo("arm", "Features : half thumb vfpv3 neon vfpv4 idiva idivt") == {
        *("vfp3", "neon", "vfp4", "hwdiv-arm", "hwdiv"),
    }
    found = features_in_cpuinfo("riscv64", "isa\t: rv64imafdcv_zicsr_zba_zvfh\nmmu : sv39\n")
    assert found == {*"mafdcv", "zba", "zvfh", "zvfhmin", "zfhmin"}
    assert features_in_cpuinfo("riscv64", "isa : rv64gc") == set("mafdc")


def test_macos():
    text = "hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 0\nhw.optional.AdvSIMD: 1\n"
    assert features_in_sysctl("aarch64", text) == {"dotprod", "neon"}
    text = "machdep.cpu.features: FPU SSE3 SSE4.1 AVX1.0 FMA\nmachdep.cpu.leaf7_features: AVX2 BMI1 AVX512F\n"
    assert features_in_sysctl("x86_64", text) == {"sse3", "sse4.1", "avx", "fma", "avx2", "bmi", "avx512f"}


def test_text_that_says_nothing():
    assert features_in_cpuinfo("x86_64", "") == set()
    assert features_in_cpuinfo("x86_64", "flags\t:\n") == set()
    assert features_in_cpuinfo("riscv64", "isa :\n") == set()
    assert features_in_cpuinfo("mips", "Features : fp") == set()


@pytest.mark.parametrize(
    ("arch", "features", "vector"),
    [
        ("x86_64", ["avx", "avx2", "avx512f"], (512, 32)),
        ("x86_64", ["avx", "avx2", "fma"], (256, 16)),
        ("x86_64", ["sse4.2"], (128, 16)),
        ("aarch64", ["neon"], (128, 32)),
        ("arm", ["neon"], (128, 16)),
        ("arm", ["vfp3"], (64, 16)),
        ("riscv64", ["d"], (64, 32)),
        ("riscv64", ["d", "v"], (128, 32)),
        ("riscv64", ["d", "v", "zvl256b"], (256, 32)),
    ],
)
def test_vector(arch, features, vector):
    assert vector_of(arch, features) == vector


# -- cores -------------------------------------------------------------------------------------------


@linux_only
def test_hyper_threads_count_once(tmp_path, affinity):
    root = tree(
        tmp_path,
        {
            f"sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list": f"{cpu % 4},{cpu % 4 + 4}"
            for cpu in range(8)
        },
    )
    affinity(*range(8))
    assert usable_cores(root) == 4
    affinity(0, 4, 1)
    assert usable_cores(root) == 2


@linux_only
def test_little_cores_do_not_count(tmp_path, affinity):
    capacity = [510, 510, 510, 510, 1024, 1024, 1024, 1024]
    root = tree(
        tmp_path,
        {f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity": str(value) for cpu, value in enumerate(capacity)},
    )
    affinity(*range(8))
    assert usable_cores(root) == 4
    # A process that is tied to the little ones has those.
    affinity(0, 1)
    assert usable_cores(root) == 2


@linux_only
@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"sys/fs/cgroup/cpu.max": "250000 100000"}, 2),
        ({"sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        ({"sys/fs/cgroup/a/cpu.max": "max 100000", "sys/fs/cgroup/cpu.max": "300000 100000"}, 3),
        ({"sys/fs/cgroup/a/b/cpu.max": "400000 100000", "sys/fs/cgroup/a/cpu.max": "900000 100000"}, 4),
        ({"sys/fs/cgroup/cpu.max": "gibberish"}, 8),
    ],
)
def test_quota_of_the_control_group(files, cores, tmp_path, affinity):
    affinity(*range(8))
    assert usable_cores(tree(tmp_path, {"proc/self/cgroup": "0::/a/b", **files})) == cores


@linux_only
def test_quota_of_an_old_control_group(tmp_path, affinity):
    affinity(*range(8))
    files = {
        "proc/self/cgroup": "4:memory:/m\n3:cpu,cpuacct:/c",
        "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us": "200000",
        "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory/m/memory.limit_in_bytes": "1048576",
    }
    root = tree(tmp_path, files)
    assert usable_cores(root) == 2
    assert memory(root) == 1 << 20


# -- caches and memory -------------------------------------------------------------------------------


@linux_only
def test_caches(tmp_path, affinity):
    affinity(0, 1, 2, 3)
    entries = [
        ("1", "Data", "48K", "0"),
        ("1", "Instruction", "64K", "0"),
        ("2", "Unified", "2M", "0-1"),
        ("3", "Unified", "30720K", "0-3"),
    ]
    files = {}
    for index, (level, kind, size, shared) in enumerate(entries):
        base = f"sys/devices/system/cpu/cpu0/cache/index{index}"
        files |= {f"{base}/level": level, f"{base}/type": kind, f"{base}/size": size}
        files |= {f"{base}/shared_cpu_list": shared, f"{base}/coherency_line_size": "64"}
    found, source = caches(tree(tmp_path, files))
    assert found == {"l1d": 48 << 10, "l2": 2 << 20, "l3": 30 << 20, "l2_cores": 2, "line": 64}
    assert source == "/sys/devices/system/cpu"


@linux_only
def test_a_system_that_hides_its_caches(tmp_path, affinity):
    affinity(0)
    found, source = caches(tmp_path)
    assert found["l1d"] == 32 << 10
    assert source.startswith("assumed")


def test_memory_is_no_more_than_the_group_may_use(tmp_path):
    files = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": str(64 << 20)}
    assert memory(tree(tmp_path, files)) == 64 << 20
    assert memory(tree(tmp_path, {"sys/fs/cgroup/memory.max": "max"})) > 64 << 20


# -- the whole ---------------------------------------------------------------------------------------


def test_this_machine():
    machine = this_machine()
    assert machine.arch == arch_of(platform.machine())
    found = detect(ask_llvm=False)
    assert found["cores"] == usable_cores()
    assert 1 <= found["cores"] <= os.cpu_count()
    assert os_of(found["triple"]) == machine.os


def test_llvm_agrees_with_the_system():
    """What the system lists and what LLVM sees by CPUID must be one thing, within the vocabulary."""
    from tvm.target import codegen

    from compiler.target import load

    host = load("host")
    if "generic" not in host.sources["cpu"] and host.sources["cpu"].startswith("LLVM"):
        assert host.cpu == str(codegen.llvm_get_system_cpu())
    used = set(map(str, codegen.llvm_get_cpu_features(host.tvm_target())))
    assert used & vocabulary(host.arch) == set(host.features)


def test_an_unknown_machine_is_refused(monkeypatch):
    from compiler.support.errors import TargetError

    monkeypatch.setattr(target_detect, "this_machine", lambda: Machine("sparc", "linux", None))
    with pytest.raises(TargetError, match="this one is 'sparc': give --target"):
        detect()


def test_why_not():
    machine = Machine("x86_64", "linux", frozenset({"avx", "avx2"}))
    assert machine.why_not("x86_64-linux-gnu", ["avx2"]) is None
    assert machine.why_not("x86_64-linux-gnu", ["avx512f", "avx512vnni", "avx2"]) == (
        "it needs CPU features that this machine lacks: avx512f, avx512vnni"
    )
    assert machine.why_not("aarch64-linux-gnu", []) == (
        "it is built for aarch64 (aarch64-linux-gnu), this machine is x86_64"
    )
    assert "macos" in machine.why_not("x86_64-apple-macos11", [])
    assert Machine("x86_64", "linux", None).why_not("x86_64-linux-gnu", ["avx512f"]) is None
