"""Kiln compiles PyTorch models for a chosen device.

The folders are the stages, in the order in which data flows: frontend, compress, passes, schedule,
tune, build, bundle, deploy. `compiler.driver` joins them on one page.
"""

from __future__ import annotations

__version__ = "0.1.0"
