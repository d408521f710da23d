"""The command line: one file a verb, which parses and calls one function. Imports neither TVM nor torch."""

from compiler.cli.main import main

__all__ = ["main"]
