"""What a library asks of the CPU before it runs: by an instruction that it lacks it would be killed.

Where a feature is reported: for x86 leaf, subleaf, register (0 is EAX) and bit of CPUID (Intel SDM, volume
2A; AMD APM, volume 3, appendix E); for ARM and RISC-V under Linux the bit of AT_HWCAP or AT_HWCAP2 (the
kernel's asm/hwcap.h). Features that are not here are part of those that are, or have no instruction.
"""

from __future__ import annotations

from compiler.target import Target

_PLACES_X86 = {
    (1, 0, 2): {
        "sse3": 0, "ssse3": 9, "fma": 12, "cx16": 13, "sse4.1": 19, "sse4.2": 20, "movbe": 22, "popcnt": 23,
        "avx": 28, "f16c": 29,
    },
    (7, 0, 1): {
        "bmi": 3, "avx2": 5, "bmi2": 8, "avx512f": 16, "avx512dq": 17, "avx512ifma": 21, "avx512cd": 28,
        "avx512bw": 30, "avx512vl": 31,
    },
    (7, 0, 2): {
        "avx512vbmi": 1, "avx512vbmi2": 6, "gfni": 8, "avx512vnni": 11, "avx512bitalg": 12,
        "avx512vpopcntdq": 14,
    },
    (7, 0, 3): {"amx-bf16": 22, "avx512fp16": 23, "amx-tile": 24, "amx-int8": 25},
    (7, 1, 0): {"avxvnni": 4, "avx512bf16": 5},
    (0x80000001, 0, 2): {"lzcnt": 5, "sse4a": 6},
}  # fmt: skip

_HWCAP, _HWCAP2 = (16, 0, 0), (26, 0, 0)
"""The keys of getauxval (elf.h); the other two numbers are not used."""

_PLACES_AARCH64 = {
    _HWCAP: {
        "fp-armv8": 0, "neon": 1, "lse": 8, "fullfp16": 10, "rdm": 12, "rcpc": 15, "dotprod": 20, "sve": 22,
    },
    _HWCAP2: {"sve2": 1, "i8mm": 13, "bf16": 14},
}  # fmt: skip
_PLACES_ARM = {_HWCAP: {"neon": 12, "vfp3": 13, "vfp4": 16, "hwdiv-arm": 17, "hwdiv": 18, "d32": 19}}
_PLACES_RISCV = {_HWCAP: {letter: ord(letter) - ord("a") for letter in "acdfmv"}}

_PLACES = {
    "x86_64": _PLACES_X86,
    "aarch64": _PLACES_AARCH64,
    "arm": _PLACES_ARM,
    "riscv64": _PLACES_RISCV,
}


def cpu_checks(target: Target) -> list[str]:
    """Return C initializers of ``kiln_feature``: a name, and four numbers that say where it is reported."""
    if target.os != "linux":
        return []
    known = {
        name: (*place, bit)
        for place, bits in _PLACES.get(target.arch, {}).items()
        for name, bit in bits.items()
    }
    return [
        f'{{"{name}", {", ".join(map(str, known[name]))}}}'
        for name in sorted(target.features)
        if name in known
    ]
