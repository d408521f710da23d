"""Golden data: inputs, and the outputs that a library must give for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compiler.bundle.arrays import to_npy
from compiler.bundle.manifest import Golden

Contents = dict[str, bytes | Path]
"""Parts of a bundle by name: their bytes, or the file that holds them."""


def store_golden(
    inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], source: str, tolerance: float
) -> tuple[Golden, Contents]:
    """Return the manifest's entry for golden data in signature order, and the parts that hold it."""
    arrays = {f"golden/input_{i}.npy": to_npy(array) for i, array in enumerate(inputs)}
    results = {f"golden/output_{i}.npy": to_npy(array) for i, array in enumerate(outputs)}
    golden = Golden(inputs=tuple(arrays), outputs=tuple(results), source=source, tolerance=tolerance)
    return golden, {**arrays, **results}
