"""One file that holds a compiled model: library, manifest, golden data. Needs neither TVM nor torch."""

from compiler.bundle.describe import describe_target, installed_versions
from compiler.bundle.manifest import (
    FORMAT,
    LIBRARY,
    CheckInfo,
    Golden,
    Manifest,
    Part,
    PassInfo,
    TargetInfo,
    from_json,
    to_json,
)
from compiler.bundle.read import Bundle, read
from compiler.bundle.write import write

__all__ = [
    "FORMAT",
    "LIBRARY",
    "Bundle",
    "CheckInfo",
    "Golden",
    "Manifest",
    "Part",
    "PassInfo",
    "TargetInfo",
    "describe_target",
    "from_json",
    "installed_versions",
    "read",
    "to_json",
    "write",
]
