"""Second moments of what layers read: how much an error of one weight makes up for that of another.

A layer computes ``y = w x`` with x the inputs of one output: a row of a matrix, or what lies under the kernel
at one place of an image. The mean square of what an error e of the weights adds is ``e E[x xT] eT``. That
matrix is gathered batch by batch; nothing of the data is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.compress.calibrate import watch
from compiler.compress.data import CalibrationData
from compiler.compress.observe import with_outputs
from compiler.compress.operators import TRANSPOSED, output_axis
from compiler.compress.quantize import Build
from compiler.compress.quantizer import Quantizer
from compiler.ir.rewriter import is_call
from compiler.support.progress import note

MOST_INPUTS = 8192
"""Layers that sum over more have no moments: the matrix would take more than a quarter of a gigabyte."""

_PLACES = 2048
"""The most outputs of a batch that are looked at: neighbours in an image are alike."""


@dataclass(frozen=True)
class Window:
    """What one output of a layer reads: of a matrix product its row, of a convolution the `kernel`'s places.

    Attributes:
        kernel: extents of the kernel, none for a matrix product.
        strides: steps of the kernel, one an axis of the image.
        dilation: steps between what the kernel reads.
        padding: zeros before and after, for all axes.
        groups: of channels; an output reads those of its group.
    """

    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    groups: int = 1

    def rows(self, values: np.ndarray, most: int) -> np.ndarray:
        """Return what up to `most` outputs read, evenly spread: groups x outputs x inputs, float32.

        Inputs are in the order of a kernel's weights: channel first, then place.
        """
        if not self.kernel:
            rows = values.reshape(-1, values.shape[-1])
            return np.asarray(rows[_spread(len(rows), most)][None])
        windows = self._windows(values)
        places = windows.shape[: values.ndim - 1]
        chosen = windows[np.unravel_index(_spread(int(np.prod(places)), most), places)]
        return np.asarray(chosen.reshape(len(chosen), self.groups, -1).transpose(1, 0, 2))

    def _windows(self, values: np.ndarray) -> np.ndarray:
        """Return what lies under the kernel: batch, axes of the output, channels, axes of the kernel."""
        padded = np.pad(values, [(0, 0), (0, 0), *self.padding])
        reach = [(extent - 1) * step + 1 for extent, step in zip(self.kernel, self.dilation, strict=True)]
        windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, values.ndim)))
        steps = [slice(None, None, step) for step in (1, 1, *self.strides, *self.dilation)]
        return np.moveaxis(windows[tuple(steps)], 1, values.ndim - 1)


def window_of(call: Any) -> Window | None:
    """Return what an output of a layer reads; None where that differs from output to output.

    Under a transposed convolution each output has its own part of the kernel.
    """
    if is_call(call, *TRANSPOSED):
        return None
    if is_call(call, "relax.matmul"):
        return Window()
    attrs, kernel = call.attrs, tuple(int(extent) for extent in call.args[1].ty.shape.values[2:])
    ends = [int(zeros) for zeros in attrs.padding]
    return Window(
        kernel,
        tuple(int(step) for step in attrs.strides),
        tuple(int(step) for step in attrs.dilation),
        tuple(zip(ends[: len(kernel)], ends[len(kernel) :], strict=True)),
        int(attrs.groups),
    )


@dataclass(eq=False)
class Moments:
    """Second moments of one value, for each way in which layers read it.

    Attributes:
        windows: these ways.
    """

    windows: Iterable[Window]
    _sums: dict[Window, np.ndarray] = field(default_factory=dict)
    _counts: dict[Window, int] = field(default_factory=dict)

    def update(self, values: np.ndarray) -> None:
        """Take in one array of float32."""
        for window in self.windows:
            rows = window.rows(np.asarray(values, np.float32), _PLACES)
            product = rows.transpose(0, 2, 1) @ rows
            if window in self._sums:
                self._sums[window] += product
            else:
                self._sums[window] = product
            self._counts[window] = self._counts.get(window, 0) + rows.shape[1]

    def mean(self, window: Window) -> np.ndarray:
        """Return E[x xT] for each group of channels: groups x inputs x inputs, float32."""
        return np.asarray(self._sums[window] / np.float32(max(self._counts[window], 1)))


def gather(quantizer: Quantizer, data: CalibrationData, build: Build) -> dict[Any, np.ndarray]:
    """Return the second moments of what layers read, by the value a layer gives, after a run on `data`.

    Layers that have none are left out, and said.
    """
    model, graph = quantizer.model, quantizer.structure.graph
    windows, left = {}, []
    for layer in quantizer.most.layers:
        call = graph.definition(layer.var)
        window = window_of(call)
        if window is None or _inputs(call) > MOST_INPUTS:
            left.append(layer.name)
        else:
            windows[layer] = window
    if left:
        note(f"rounded to the nearest: {', '.join(left)} (transposed, or of over {MOST_INPUTS} inputs)")
    ways: dict[Any, dict[Window, None]] = {}
    for layer, window in windows.items():
        ways.setdefault(layer.data, {})[window] = None
    run, own = build(with_outputs(model.mod, list(ways)), model.signature), len(model.signature.outputs)
    moments = {var: Moments(tuple(each)) for var, each in ways.items()}
    named = {quantizer.structure.names[var]: each for var, each in moments.items()}
    watch(lambda arrays: run(arrays)[own:], data, named, remark=False)
    return {layer.var: moments[layer.data].mean(window) for layer, window in windows.items()}


def _inputs(call: Any) -> int:
    """Return how many weights an output of a layer has."""
    shape = [int(extent) for extent in call.args[1].ty.shape.values]
    return int(np.prod(shape)) // shape[output_axis(call)]


def _spread(count: int, most: int) -> np.ndarray:
    """Return up to `most` numbers below `count`, evenly spread."""
    return np.arange(count) if count <= most else (np.arange(most) * count) // most
