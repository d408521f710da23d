"""A task's kernel as those who measure it take it: its weights as far away as they are in the network."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import tvm

from compiler.target import Target
from compiler.tune.task import Task
from compiler.tune.trial import Kernel

_MOST_COPIES = 256
_SMALL = 1 << 12
"""Bytes of a weight that is found in the nearest cache wherever it was."""

_TOLERANCES = {
    "float32": 1e-3,
    "float16": 2e-3,
    "bfloat16": 1e-2,
    "uint16": 1e-2,
    "int8": 1e-2,
    "uint8": 1e-2,
}
"""How far apart sums of floats in different orders may be, relative to the greatest result: where that is
rounded to fewer bits, the next number may be taken."""


def kernel_of(task: Task, weights: int, target: Target) -> Kernel:
    """Return a task's kernel with weights as far away as they are in a network of `weights` bytes of them."""
    far = min(weights, 2 * max(target.caches.l3, target.caches.l2))
    cold = tuple(
        min(_MOST_COPIES, max(1, math.ceil(far / bytes_of_buffer(parameter))))
        if constant and bytes_of_buffer(parameter) > _SMALL
        else 1
        for parameter, constant in _parameters(task)
    )
    output = str(task.function.params[-1].ty.dtype)
    return Kernel(task.names[0], tvm.ir.save_json(task.function), cold, _TOLERANCES.get(output, 1e-3))


def weights_of(tasks: Iterable[Task]) -> int:
    """Return the bytes of all weights that kernels of `tasks` read."""
    return sum(
        bytes_of_buffer(buffer) for task in tasks for buffer, constant in _parameters(task) if constant
    )


def _parameters(task: Task) -> list[tuple[Any, bool]]:
    return list(zip((parameter.ty for parameter in task.function.params), task.constants, strict=True))


def bytes_of_buffer(buffer: Any) -> int:
    """Return the bytes of a parameter of that type, whose extents are known."""
    bits = tvm.DataType(str(buffer.dtype)).bits
    return max(1, int(np.prod([int(extent) for extent in buffer.shape])) * int(bits) // 8)
