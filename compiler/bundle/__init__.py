"""One file that holds a compiled model: library, manifest, golden data. Needs neither TVM nor torch."""

from compiler.bundle.describe import describe
from compiler.bundle.golden import Contents, store_golden
from compiler.bundle.manifest import (
    FORMAT,
    LIBRARY,
    AotInfo,
    CheckInfo,
    Golden,
    KernelInfo,
    Manifest,
    Part,
    PassInfo,
    QuantizationInfo,
    StepInfo,
    TargetInfo,
    from_json,
    to_json,
)
from compiler.bundle.reader import Bundle, read
from compiler.bundle.writer import write

__all__ = [
    "FORMAT",
    "LIBRARY",
    "AotInfo",
    "Bundle",
    "CheckInfo",
    "Contents",
    "Golden",
    "KernelInfo",
    "Manifest",
    "Part",
    "PassInfo",
    "QuantizationInfo",
    "StepInfo",
    "TargetInfo",
    "describe",
    "from_json",
    "read",
    "store_golden",
    "to_json",
    "write",
]
