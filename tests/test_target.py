"""Targets: the shipped ones are right and complete, a user's file extends them, a wrong one is named."""

import dataclasses
import struct

import pytest
import yaml

from compiler.support.errors import TargetError
from compiler.support.resources import data_folder
from compiler.target import (
    Accelerator,
    Board,
    Caches,
    Target,
    Toolchain,
    Vector,
    compatible,
    load,
    names,
    required_features,
    why_not_here,
)
from compiler.target_isa import vector_of, vocabulary
from compiler.target_schema import dump, read

SHIPPED = [name for name in names() if name != "host"]
PROMISED = {
    *("host", "x86-64-v2", "x86-64-v3", "x86-64-v4", "znver4", "cascadelake", "sapphirerapids"),
    *("rpi2", "rpi3", "rpi4", "rpi5", "rk3588", "riscv64"),
    *("jetson-orin", "rtx-4090", "h100", "mali-g610", "adreno-740", "apple-m1"),
}


def write(folder, text, name="board.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def test_all_promised_targets_are_shipped():
    assert set(names()) >= PROMISED
    assert names()[0] == "host"


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_descriptor_is_complete(name):
    target = load(name)
    assert target.name == name
    assert target.description
    assert (target.vector.bits, target.vector.registers) == vector_of(target.arch, target.features)
    assert set(target.features) <= vocabulary(target.arch)
    assert hash(target) == hash(load(name))
    assert load(target) is target


@pytest.mark.parametrize("name", SHIPPED)
def test_every_number_has_a_source(name):
    target = load(name)
    for key in numbers(dataclasses.asdict(target)):
        if key.startswith(("board.", "toolchain.")) or key in ("caches.line", "caches.l2_cores"):
            continue
        assert any(key == known or key.startswith(f"{known}.") for known in target.sources), key


def numbers(data, prefix=""):
    for key, value in data.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int) and value:
            yield prefix + key


@pytest.mark.parametrize("name", names())
def test_dump_reads_back_as_the_same_target(name, tmp_path):
    target = load(name)
    assert read(write(tmp_path, dump(target))) == target


def test_dump_without_a_name_takes_the_files_name(tmp_path):
    assert read(write(tmp_path, dump(load("rpi4"), named=False), "shed.yaml")).name == "shed"


@pytest.mark.parametrize(
    ("name", "dtype", "lanes"),
    [
        ("znver4", "float32", 16),
        ("znver4", "int8", 64),
        ("x86-64-v3", "float16", 16),
        ("rpi4", "bfloat16", 8),
        ("rpi4", "float64", 2),
        ("rpi4", "bool", 16),
        ("rpi4", "float8_e4m3fn", 16),
        ("riscv64", "float32", 2),
        ("riscv64", "float64", 1),
    ],
)
def test_lanes(name, dtype, lanes):
    assert load(name).lanes(dtype) == lanes


def test_lanes_refuses_what_is_no_dtype():
    with pytest.raises(TargetError, match="expected a dtype such as 'float32', got 'floaty'"):
        load("rpi4").lanes("floaty")


def test_facts_of_boards():
    assert load("rpi4").cpu == "cortex-a72"
    assert not load("rpi4").has("dotprod")
    assert load("rpi5").has("dotprod")
    assert load("jetson-orin").accelerator.arch == "sm_87"
    assert load("jetson-orin").cpu == "cortex-a78ae"
    assert load("h100").accelerator.max_dynamic_shared_memory_per_block == 227 << 10
    assert (load("mali-g610").os, load("adreno-740").os, load("apple-m1").os) == ("linux", "android", "macos")
    assert load("jetson-orin-nano").accelerator.registers_per_block == 65536


# -- a user's own file -------------------------------------------------------------------------------


def test_a_file_extends_a_shipped_target(tmp_path):
    path = write(tmp_path, "extends: rpi4\ncores: 2\ncaches: {l2: 512 KiB}\nboard: {host: shed.local}\n")
    target, parent = load(path), load("rpi4")
    assert load(str(path)) == target
    assert (target.name, target.cores) == ("board", 2)
    assert target.caches == dataclasses.replace(parent.caches, l2=512 << 10)
    assert target.features == parent.features
    assert target.board == dataclasses.replace(parent.board, host="shed.local")
    assert target.description == "rpi4, changed by board.yaml"
    # A changed number no longer comes from the inherited source.
    assert target.sources["cores"] == target.sources["caches.l2"] == "board.yaml"
    assert target.sources["memory"] == parent.sources["memory"]


def test_features_are_changed_by_sign_or_replaced(tmp_path):
    base = set(load("rpi5").features)
    signed = load(write(tmp_path, "extends: rpi5\nfeatures: [+i8mm, -lse]\n"))
    assert set(signed.features) == base - {"lse"} | {"i8mm"}
    assert load(write(tmp_path, "extends: rpi5\nfeatures: [neon]\n")).features == ("neon",)


def test_vector_follows_the_features(tmp_path):
    path = write(tmp_path, "extends: znver4\nfeatures: [avx, avx2, fma]\n")
    assert (load(path).vector.bits, load(path).vector.registers) == (256, 16)


def test_another_cpu_brings_its_own_features(tmp_path):
    target = load(write(tmp_path, "extends: rpi4\ncpu: cortex-a76\n"))
    assert target.features == load("rpi5").features


def test_a_chain_of_files_and_the_host(tmp_path):
    write(tmp_path, "extends: host\ncores: 1\n", "a.yaml")
    target = load(write(tmp_path, "extends: a.yaml\nmemory: 1 GiB\n", "b.yaml"))
    assert (target.cores, target.memory, target.cpu) == (1, 1 << 30, load("host").cpu)


WRONG = {
    "vecotr: {bits: 128}": r"unknown key 'vecotr' in '.*board.yaml' line 2; did you mean 'vector'\?",
    "caches:\n  l1: 4": r"unknown key 'caches.l1' in '.*' line 3; did you mean 'l1d'\?",
    "cores: four": r"wrong value of 'cores' in '.*' line 2: expected .*integer, got \"four\"",
    "cores: 0": r"wrong value of 'cores' in '.*' line 2: expected greater than or equal to 1, got 0",
    "cores: true": r"wrong value of 'cores' in .* line 2: expected .*integer, got true",
    "cores: .inf": r"wrong value of 'cores' in .* line 2",
    "kind: cuda": r"wrong value of 'kind' in .* line 2: a target of kind 'cuda' has an 'accelerator'",
    "kind: tpu": r"wrong value of 'kind' in .* line 2: expected 'cpu', 'cuda'.*, got \"tpu\"",
    "triple: sparc-linux-gnu": r"'triple' in .* line 2: expected .* x86_64, aarch64",
    "vector: {bits: 100, registers: 3}": r"'vector.bits' in .* expected a power of two, got 100",
    "features: [-dotprd]": r"line 2: cannot take away 'dotprd'.*did you mean 'dotprod'",
    "features: [+lse, rdm]": r"line 2: expected either the complete list .* got 'rdm'",
    "sources: {cpuu: x}": r"no field is called 'cpuu'; did you mean 'cpu'",
    "name: ../evil": r"wrong value of 'name' in .* line 2",
    "cpu: cortex-a721": r"got 'cortex-a721'; did you mean 'cortex-a72'",
    "accelerator: {arch: hopper}": r"missing key 'accelerator.*' in .* line 2 \(and \d more\)",
}
WRONG = {f"extends: rpi4\n{text}\n": message for text, message in WRONG.items()}
WRONG |= {
    "extends: h100\naccelerator: null\n": r"wrong value of 'kind'",
    "extends: h100\naccelerator:\n  arch: hopper\n": r"'accelerator.arch' in .* line 3: expected .* 'sm_87'",
    "extends: h100\naccelerator:\n  max_grid: [1, 2]\n": r"'accelerator.max_grid.*' in .*board.* line 3",
    "extends: rpi44\n": r"line 1: cannot extend the unknown target 'rpi44'; did you mean 'rpi4'\?",
    "extends: [rpi4]\n": r"line 1: expected the name of a target after 'extends'",
    "extends: board.yaml\n": r"'board.yaml' extends itself: board.yaml -> board.yaml",
    "kind: cpu\ntriple: aarch64-linux-gnu\n": r"missing key 'cpu' in '.*board.yaml'",
    "extends: nothere.yaml\n": r"cannot read the target descriptor '.*nothere.yaml'",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items())
def test_a_wrong_descriptor_is_one_clear_line(text, message, tmp_path, capfd):
    with pytest.raises(TargetError, match=message) as error:
        load(write(tmp_path, text))
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_unknown_names():
    with pytest.raises(
        TargetError, match=r"^unknown target 'rpi44'; did you mean 'rpi4'\? \(`kiln targets` lists all\)$"
    ):
        load("rpi44")
    with pytest.raises(TargetError, match=r"a descriptor of your own is a path that ends in .yaml"):
        load("qqqqqq")
    with pytest.raises(TargetError, match=r"cannot read the target descriptor 'nothere.yaml': No such file"):
        load("nothere.yaml")


def test_a_long_chain_is_refused(tmp_path):
    for index in range(12):
        write(tmp_path, f"extends: d{index + 1}.yaml\n", f"d{index}.yaml")
    with pytest.raises(TargetError, match="extends more than 8 others"):
        load(tmp_path / "d0.yaml")


# -- what runs here ----------------------------------------------------------------------------------


def test_the_host_runs_its_own_code():
    host = load("host")
    assert compatible(host) is None
    assert required_features(host) == tuple(sorted(host.features))
    assert host.vector.bits == vector_of(host.arch, host.features)[0]


def test_code_for_another_machine_is_refused():
    host = load("host")
    other = "riscv64" if host.arch != "riscv64" else "rpi4"
    assert f"it is built for {load(other).arch}" in compatible(load(other))
    missing = sorted(vocabulary(host.arch) - set(host.features))[0]
    assert why_not_here(host.triple, [missing, *host.features]).endswith(f"lacks: {missing}")
    # Only what generated code can need counts.
    assert why_not_here(host.triple, ["fast-lzcnt"]) is None


# -- what TVM and LLVM make of it --------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_llvm_uses_exactly_the_listed_features(name):
    from tvm.target import codegen

    target = load(name)
    tvm_target = target.tvm_target()
    cpu = tvm_target if target.accelerator is None else tvm_target.host
    used = set(map(str, codegen.llvm_get_cpu_features(cpu)))
    assert used & vocabulary(target.arch) == set(target.features)
    assert codegen.llvm_is_valid_cpu(target.cpu, target.triple)


MACHINES = {"x86_64": 62, "aarch64": 183, "arm": 40, "riscv64": 243}
"""e_machine of ELF, by the ELF specification's supplements."""


@pytest.mark.parametrize("name", SHIPPED)
def test_a_kernel_becomes_an_object_of_the_device(name, tmp_path):
    target = load(name)
    build_object(target, tmp_path / "k.o")
    head = (tmp_path / "k.o").read_bytes()[:64]
    if target.os == "macos":
        assert struct.unpack("<II", head[:8]) == (0xFEEDFACF, 0x0100000C)  # 64-bit Mach-O for Arm
    else:
        assert head[:4] == b"\x7fELF"
        assert struct.unpack("<H", head[18:20])[0] == MACHINES[target.arch]
    flags = struct.unpack("<I", head[36:40] if target.arch == "arm" else head[48:52])[0]
    if target.arch == "riscv64" and target.os == "linux":
        assert flags & 0x6 == 0x4  # double-precision calling convention


def build_object(target: Target, path):
    return build_kernel(target).write_to_file(str(path), "o")


def build_kernel(target: Target):
    """Return the module of ``b = a * b`` on 64 vectors, for the CPU of `target`."""
    import tvm
    from tvm.script import tirx as T

    lanes = target.lanes("float32")
    size = 64 * lanes

    @T.prim_func(s_tir=True)
    def kernel(a: T.Buffer((size,), "float32"), b: T.Buffer((size,), "float32")):
        for i in T.serial(64):
            for v in T.vectorized(lanes):
                with T.sblock("multiply"):
                    at = T.axis.spatial(size, i * lanes + v)
                    b[at] = a[at] * b[at]

    cpu = target.tvm_target()
    cpu = cpu if target.accelerator is None else cpu.host
    return tvm.tirx.build(tvm.IRModule({"kernel": kernel.with_attr("global_symbol", "kernel")}), target=cpu)


def test_features_taken_away_are_not_used(tmp_path):
    wide = load("znver4")
    kept = [name for name in wide.features if "avx512" not in name]
    narrow = load(write(tmp_path, f"extends: znver4\nfeatures: {kept}\n"))
    assert "zmm" in build_kernel(wide).inspect_source("asm")
    code = build_kernel(narrow).inspect_source("asm")
    assert "zmm" not in code
    assert "ymm" in code


def test_hard_float_is_kept(tmp_path):
    words = load("rpi2").tvm_target().attrs
    assert words["mfloat-abi"] == "hard"


def test_gpu_limits_reach_tvm():
    import tvm

    orin = load("jetson-orin").tvm_target()
    assert (orin.kind.name, orin.attrs["arch"], orin.attrs["max_shared_memory_per_block"]) == (
        "cuda",
        "sm_87",
        49152,
    )
    assert orin.attrs["thread_warp_size"] == 32
    assert "aarch64" in orin.host.attrs["mtriple"]
    mali = load("mali-g610").tvm_target()
    assert (mali.kind.name, mali.attrs["device"], mali.attrs["thread_warp_size"]) == ("opencl", "mali", 1)
    assert "mali" in mali.keys
    assert "adreno" in load("adreno-740").tvm_target().keys
    metal = load("apple-m1").tvm_target()
    assert (metal.kind.name, metal.attrs["thread_warp_size"]) == ("metal", 32)
    assert isinstance(metal.host, tvm.target.Target)


def test_an_unknown_feature_is_named(tmp_path, capfd):
    target = load(write(tmp_path, "extends: rpi4\nfeatures: [+dotprd]\n"))
    with pytest.raises(TargetError, match=r"target 'board': .* got 'dotprd'; did you mean 'dotprod'\?"):
        target.tvm_target()
    assert "dotprd" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("[avx, avx2, fma]", r"target 'board': .* avx, avx2, fma cannot be without others: list them too"),
        ("[-sse3]", r"cannot be without others"),
        ("[+avx512vnni]", r"others imply avx512f: list them too"),
    ],
)
def test_features_must_be_complete(features, message, tmp_path):
    with pytest.raises(TargetError, match=message):
        load(write(tmp_path, f"extends: x86-64-v3\nfeatures: {features}\n")).tvm_target()


def test_contradictions_of_a_machine_are_settled():
    from compiler.target_tvm import settle

    v3 = frozenset(load("x86-64-v3").features)
    assert settle("x86_64-linux-gnu", "x86-64-v3", v3) == v3
    assert settle("x86_64-linux-gnu", "x86-64-v3", v3 - {"avx"}) == v3 - {"avx", "avx2", "fma", "f16c"}
    assert "avx512f" in settle("x86_64-linux-gnu", "x86-64-v3", v3 | {"avx512vnni"})


def test_shipped_files_name_no_unknown_emulator():
    for path in data_folder("targets").glob("*.yaml"):
        data = yaml.safe_load(path.read_text())
        for word in data.get("toolchain", {}).get("emulator", [])[:1]:
            assert word.startswith("qemu-")
            assert word.endswith("-static")


def test_every_key_is_documented():
    text = (data_folder("targets").parent / "docs" / "targets.md").read_text()
    for kind in (Target, Vector, Caches, Accelerator, Toolchain, Board):
        for key in dataclasses.fields(kind):
            assert f"`{key.name}`" in text, key.name
