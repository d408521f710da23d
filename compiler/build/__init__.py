"""Turns a scheduled module into a library for the target."""

from compiler.build.build import Built, build

__all__ = ["Built", "build"]
