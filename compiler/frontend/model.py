"""What the frontend gives: one IRModule, however the model was written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm

from compiler.support.signature import Signature

Arrays = Sequence[np.ndarray]


@dataclass(frozen=True)
class Quantized:
    """What a quantized model carries along, to be checked with and to be told about.

    `report` is plain data (see `compiler.compress.report`). For each of `inputs`, flat and in signature
    order, `exact` holds what the model in float gives, and `rounded` what the quantized one does, computed
    in float.
    """

    report: Mapping[str, Any]
    inputs: tuple[tuple[np.ndarray, ...], ...] = ()
    exact: tuple[tuple[np.ndarray, ...], ...] = ()
    rounded: tuple[tuple[np.ndarray, ...], ...] = ()


@dataclass(frozen=True)
class Model:
    """An imported model.

    `mod` holds one Relax function ``main`` that takes the inputs of `signature` in order and returns a
    flat tuple of its outputs (a tuple even for one output). Weights are constants inside it.
    `reference` runs the original (PyTorch, or the ONNX graph) on numpy arrays in the same order, and is
    None where there is nothing to run. `examples` are the user's own example inputs (with explicit
    state: followed by its initial value), empty if none.

    `ranges` bounds the values that fresh random inputs may take (inclusive, by input name), `sizes` is
    the extent of each symbolic dimension in `examples`, and `program` is what `mod` was translated
    from (a decomposed torch ExportedProgram), which finds the layer that differs. `quantized` is set once
    `mod` holds pairs of quantize and dequantize that compression put there; `reference` is None then.
    `layers` says what the nodes are that variables of `mod` are named by (`compiler.ir.layers`): the path of
    the module and the operator, such as ``layer1.0.conv1 conv2d``.
    """

    mod: tvm.IRModule
    signature: Signature
    origin: str
    reference: Callable[[Arrays], list[np.ndarray]] | None = None
    examples: tuple[np.ndarray, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    program: Any = None
    quantized: Quantized | None = None
    layers: Mapping[str, str] = field(default_factory=dict)
