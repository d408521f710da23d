"""Runs compiled models: here, or on a board. Loads without torch."""

from compiler.deploy.session import Session, load
from compiler.deploy.verify import OutputReport, relative_error, verify

__all__ = ["OutputReport", "Session", "load", "relative_error", "verify"]
