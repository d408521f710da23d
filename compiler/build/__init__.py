"""Turns a scheduled module into a library for the target."""

from compiler.build.aot import AotLibrary
from compiler.build.build import Built, build, build_ahead
from compiler.build.c_source import Names, identifiers
from compiler.build.cpu_checks import cpu_checks
from compiler.build.program import why_not_ahead

__all__ = [
    "AotLibrary",
    "Built",
    "Names",
    "build",
    "build_ahead",
    "cpu_checks",
    "identifiers",
    "why_not_ahead",
]
