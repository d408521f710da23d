"""The driver's third page: a model's kernels are tuned for a device, and what is found goes to a log.

import    the model becomes one IRModule, quantized if wanted
optimize  the passes, as for a compilation: these are the kernels that it will have
tune      trials until the budget is spent; see `compiler.tune.tuner`
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from compiler.build.jit import jit
from compiler.deploy.benchmark import cpu_name
from compiler.deploy.threads import use_threads
from compiler.schedule.log import Log, read_log
from compiler.schedule.records import identity
from compiler.target import Target
from compiler.tune.budget import Budget
from compiler.tune.task import Task, find_tasks
from compiler.tune.trial import Kernel, Patience, Tools
from compiler.tune.tuner import Facts, Listener, Tuner
from compiler.tune.workers import Workers

_MOST_COPIES = 256
_SMALL = 1 << 12
"""Bytes of a weight that is found in the nearest cache wherever it was."""

_TOLERANCE = 1e-3
"""How far apart sums of floats in different orders may be, relative to the greatest result."""


def tune_module(
    mod: Any,
    target: Target,
    path: Path,
    budget: Budget,
    listener: Listener,
    *,
    threads: int,
    builders: int,
    session: str,
    patience: Patience | None = None,
) -> Sequence[Task]:
    """Tune the kernels of an optimized module; return the tasks with what is known of them.

    Raises:
        UsageError: the log cannot be written.
    """
    tasks = find_tasks(mod, target)
    facts = Facts(
        identity(target), threads, cpu_name(), version("kiln-compiler"), version("apache-tvm"), session
    )
    trials, spent = 0, 0.0
    with Log(path) as log:
        known = {task.workload: task for task in tasks}
        for record in read_log(path).records:
            if record.session == session:
                trials, spent = trials + 1, max(spent, record.spent)
            task = known.get(record.workload)
            if task is not None and record.key == (task.workload, facts.device, threads):
                task.take(record)
        weights = sum(_bytes(p) for task in tasks for p, c in _parameters(task) if c)
        tools = Tools(jit, use_threads)
        with Workers(builders, target, tools, threads, patience) as workers:
            numbers = {task: workers.add(_kernel(task, weights, target)) for task in tasks}
            tuner = Tuner(tasks, numbers, workers, log, facts, budget, listener, trials, spent)
            tuner.run()
    return tasks


def _kernel(task: Task, weights: int, target: Target) -> Kernel:
    """Return a task's kernel with weights as far away as they are in a network of `weights` bytes of them."""
    far = min(weights, 2 * max(target.caches.l3, target.caches.l2))
    cold = tuple(
        min(_MOST_COPIES, max(1, math.ceil(far / _bytes(parameter))))
        if constant and _bytes(parameter) > _SMALL
        else 1
        for parameter, constant in _parameters(task)
    )
    return Kernel(task.names[0], tvm.ir.save_json(task.function), cold, _TOLERANCE)


def _parameters(task: Task) -> list[tuple[Any, bool]]:
    return list(zip((parameter.ty for parameter in task.function.params), task.constants, strict=True))


def _bytes(buffer: Any) -> int:
    bits = tvm.DataType(str(buffer.dtype)).bits
    return max(1, int(np.prod([int(extent) for extent in buffer.shape])) * int(bits) // 8)
