"""Compression: fewer bits for the numbers of a model, and how few the data allows.

`scheme` says what numbers become, `grids` makes it codes and scales, `data` and `calibrate` find out what
values a model computes. Loads with numpy alone.
"""

from __future__ import annotations

from compiler.compress.scheme import PRESETS, Scheme, scheme_named

__all__ = ["PRESETS", "Scheme", "scheme_named"]
