"""Runs compiled models: here, or on a board. Loads without torch."""

from compiler.deploy.aot import AotFiles
from compiler.deploy.compiled import CompiledModel
from compiler.deploy.session import ALIGNMENT, Session, load, run_library, why_not_run
from compiler.deploy.threads import choose_threads, use_threads
from compiler.deploy.verification import OutputReport, relative_error, verify

__all__ = [
    "ALIGNMENT",
    "AotFiles",
    "CompiledModel",
    "OutputReport",
    "Session",
    "choose_threads",
    "load",
    "relative_error",
    "run_library",
    "use_threads",
    "verify",
    "why_not_run",
]
