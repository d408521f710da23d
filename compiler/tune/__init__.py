"""Tuning: find by measuring which decisions make each kernel of a network fastest on one device."""

from __future__ import annotations

from compiler.tune.budget import Budget

__all__ = ["Budget"]
