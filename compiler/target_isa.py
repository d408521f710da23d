"""Instruction sets as plain data: what a feature is called, and how wide it makes a vector register.

One vocabulary is used everywhere: LLVM's feature names. Only features are listed whose instructions the
code generator picks by itself or our schedules ask for: a library never needs the others (cryptography,
privileged instructions, tuning hints), so a machine that lacks them still runs it.

Sources: LLVM's ``X86.td``, ``AArch64Features.td``, ``ARMFeatures.td`` and ``RISCVFeatures.td`` for the
names on the right; Linux' ``arch/x86/include/asm/cpufeatures.h``, ``arch/arm64/kernel/cpuinfo.c``,
``arch/arm/kernel/setup.c`` and ``arch/riscv/kernel/cpu.c`` for what ``/proc/cpuinfo`` says, on the left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

ARCHITECTURES = ("x86_64", "aarch64", "arm", "riscv64")
"""The CPU architectures that Kiln generates code for."""

_ALIASES = {"amd64": "x86_64", "x86-64": "x86_64", "arm64": "aarch64"}

_X86_FLAGS = {
    "pni": "sse3",
    "ssse3": "ssse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "sse4a": "sse4a",
    "cx16": "cx16",
    "lahf_lm": "sahf",
    "popcnt": "popcnt",
    "abm": "lzcnt",
    "movbe": "movbe",
    "bmi1": "bmi",
    "bmi2": "bmi2",
    "3dnowprefetch": "prfchw",
    "avx": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "gfni": "gfni",
    "avx_vnni": "avxvnni",
    "avx_vnni_int8": "avxvnniint8",
    "avx_vnni_int16": "avxvnniint16",
    "avx_ifma": "avxifma",
    "avx_ne_convert": "avxneconvert",
    "avx512f": "avx512f",
    "avx512cd": "avx512cd",
    "avx512bw": "avx512bw",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_vnni": "avx512vnni",
    "avx512_bitalg": "avx512bitalg",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx512_bf16": "avx512bf16",
    "avx512_fp16": "avx512fp16",
    "amx_tile": "amx-tile",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
    "amx_fp16": "amx-fp16",
}
_AARCH64_FLAGS = {
    "fp": "fp-armv8",
    "asimd": "neon",
    "asimdhp": "fullfp16",
    "asimdfhm": "fp16fml",
    "asimdrdm": "rdm",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
    "sme": "sme",
    "atomics": "lse",
    "uscat": "lse2",
    "lrcpc": "rcpc",
    "ilrcpc": "rcpc-immo",
    "fcma": "complxnum",
    "jscvt": "jsconv",
    "flagm": "flagm",
    "cssc": "cssc",
    "mops": "mops",
}
_ARM_FLAGS = {
    "neon": "neon",
    "vfpv3": "vfp3",
    "vfpv4": "vfp4",
    "vfpd32": "d32",
    "idiva": "hwdiv-arm",
    "idivt": "hwdiv",
    "asimdhp": "fullfp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "asimdbf16": "bf16",
}
_RISCV_LETTERS = "mafdcv"
_RISCV_WORDS = (
    "zba",
    "zbb",
    "zbc",
    "zbs",
    "zfh",
    "zfhmin",
    "zicond",
    "zvfh",
    "zvfhmin",
    "zvl256b",
    "zvl512b",
)
_RISCV_IMPLIED = {"zfh": ["zfhmin"], "zvfh": ["zvfhmin", "zfhmin"], "zvl512b": ["zvl256b"]}
_MACOS_ARM_KEYS = {
    "AdvSIMD": "neon",
    "neon": "neon",
    "neon_fp16": "fullfp16",
    "armv8_2_fhm": "fp16fml",
    "armv8_1_atomics": "lse",
    "floatingpoint": "fp-armv8",
    "FEAT_FP16": "fullfp16",
    "FEAT_FHM": "fp16fml",
    "FEAT_RDM": "rdm",
    "FEAT_DotProd": "dotprod",
    "FEAT_I8MM": "i8mm",
    "FEAT_BF16": "bf16",
    "FEAT_SME": "sme",
    "FEAT_LSE": "lse",
    "FEAT_LSE2": "lse2",
    "FEAT_LRCPC": "rcpc",
    "FEAT_LRCPC2": "rcpc-immo",
    "FEAT_FCMA": "complxnum",
    "FEAT_JSCVT": "jsconv",
    "FEAT_FlagM": "flagm",
}
_VOCABULARY = {
    "x86_64": frozenset(_X86_FLAGS.values()),
    "aarch64": frozenset(_AARCH64_FLAGS.values()),
    "arm": frozenset(_ARM_FLAGS.values()),
    "riscv64": frozenset(_RISCV_LETTERS) | frozenset(_RISCV_WORDS),
}


def arch_of(triple: str) -> str:
    """Return the architecture of an LLVM triple, or of what ``uname -m`` prints, by one name each.

    ``armv7-linux-gnueabihf`` and ``armv7l`` give ``arm``, ``arm64-apple-macos`` gives ``aarch64``; a name
    that is not in `ARCHITECTURES` is returned in lower case.
    """
    word = triple.split("-", 1)[0].lower() if not triple.lower().startswith("x86-64") else "x86_64"
    word = _ALIASES.get(word, word)
    return "arm" if re.fullmatch(r"(arm|thumb)(v[6-8]\w*)?", word) else word


def os_of(triple: str) -> str:
    """Return the operating system of a triple: ``linux``, ``android``, ``macos``, ``windows`` or ``none``."""
    words = "-".join(triple.lower().split("-")[1:])
    for name, signs in (
        ("android", ("android",)),
        ("macos", ("macos", "darwin")),
        ("windows", ("windows", "mingw")),
        ("linux", ("linux",)),
    ):
        if any(sign in words for sign in signs):
            return name
    return "none"


def vocabulary(arch: str) -> frozenset[str]:
    """Return the LLVM names of the features of `arch` that generated code can need."""
    return _VOCABULARY.get(arch, frozenset())


def features_in_cpuinfo(arch: str, text: str) -> frozenset[str]:
    """Return the LLVM names of the features that the text of Linux' ``/proc/cpuinfo`` lists.

    Where the cores differ (big and little ones), only what all of them have counts.
    """
    key = {"x86_64": "flags", "riscv64": "isa"}.get(arch, "features")
    cores = [
        value.split()
        for name, value in re.findall(r"^([^:\n]*?)[ \t]*:[ \t]*(.*)$", text, re.MULTILINE)
        if name.lower() == key
    ]
    found = [_features_of_flags(arch, flags) for flags in cores]
    return frozenset.intersection(*found) if found else frozenset()


def _features_of_flags(arch: str, flags: list[str]) -> frozenset[str]:
    if arch == "riscv64":
        isa = (flags[0] if flags else "").lower().removeprefix("rv64")
        letters, *words = isa.split("_")
        # "g" is short for the general set; what a word implies is often left out.
        letters = letters.replace("g", "imafd")
        implied = [other for word in words for other in _RISCV_IMPLIED.get(word, ())]
        return frozenset([*letters, *words, *implied]) & vocabulary(arch)
    table = {"x86_64": _X86_FLAGS, "aarch64": _AARCH64_FLAGS, "arm": _ARM_FLAGS}.get(arch, {})
    return frozenset(table[flag] for flag in flags if flag in table)


def features_in_sysctl(arch: str, text: str) -> frozenset[str]:
    """Return the LLVM names of the features that macOS' ``sysctl hw.optional machdep.cpu`` prints."""
    pairs = dict(re.findall(r"^([\w.]+):[ \t]*(.*)$", text, re.MULTILINE))
    if arch == "aarch64":
        on = {name.rsplit(".", 1)[-1] for name, value in pairs.items() if value.strip() == "1"}
        return frozenset(feature for key, feature in _MACOS_ARM_KEYS.items() if key in on)
    words = " ".join(
        pairs.get(f"machdep.cpu.{key}", "") for key in ("features", "leaf7_features", "extfeatures")
    )
    # macOS spells Intel's names without separators, and two of them differently from Linux.
    spelled = {flag.replace("_", ""): feature for flag, feature in _X86_FLAGS.items()}
    spelled |= {"sse3": "sse3", "avx1.0": "avx", "sse4.1": "sse4.1", "sse4.2": "sse4.2", "lzcnt": "lzcnt"}
    spelled |= {"lahf": "sahf"}
    return frozenset(spelled[word] for word in words.lower().split() if word in spelled)


def vector_of(arch: str, features: Iterable[str]) -> tuple[int, int]:
    """Return the width in bits of a vector register and how many there are.

    Without vector instructions these are the floating-point registers. Scalable vectors count with the
    width that every implementation has, because generated code has fixed widths.

    Sources: Intel's Software Developer's Manual, vol. 1, 13-15; Arm's Architecture Reference Manual,
    A1.3 and B1.2; the RISC-V "V" extension 1.0, section 18.3 (V implies 128 bits).
    """
    known = set(features)
    if arch == "x86_64":
        if "avx512f" in known:
            return 512, 32
        return (256, 16) if "avx" in known else (128, 16)
    if arch == "aarch64":
        return (128, 32) if "neon" in known else (64, 32)
    if arch == "arm":
        return (128, 16) if "neon" in known else (64, 16)
    if arch == "riscv64" and "v" in known:
        widths = [int(bits) for name in known for bits in re.findall(r"^zvl(\d+)b$", name)]
        return max([128, *widths]), 32
    return 64, 32
