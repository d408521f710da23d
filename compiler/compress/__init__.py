"""Compression: fewer bits for the numbers of a model, and how few the data allows.

`scheme` says what numbers become, `grids` makes it codes and scales, `data` and `calibrate` find out what
values a model computes; these load neither TVM nor torch, and the package itself not even numpy.
"""

from __future__ import annotations

from compiler.compress.scheme import PRESETS, Scheme, scheme_named

__all__ = ["PRESETS", "Scheme", "scheme_named"]
