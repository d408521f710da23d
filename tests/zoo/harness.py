"""Takes a model of the zoo through all stages and compares what runs with PyTorch."""

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from compiler.build import build
from compiler.deploy.session import Session
from compiler.frontend import load
from compiler.passes import optimize
from compiler.schedule import schedule
from compiler.target import load as load_target
from tests.zoo.models import Entry, Sample

TOLERANCE = 1e-4
"""Largest error allowed, over the range of the output it occurs in."""


@dataclass(frozen=True)
class Outcome:
    """What became of a model: seconds, milliseconds, error over the output's range, kernels by rule."""

    name: str
    parameters: int
    import_s: float
    compile_s: float
    error: float
    kiln_ms: float
    rules: Counter = field(default_factory=Counter)


def take_through(entry: Entry, folder: Path, threads: int = 1, runs: int = 0) -> Outcome:
    """Import, compile and run a model in `folder`; time it over `runs` runs if asked."""
    torch.manual_seed(0)
    sample = entry.make()
    start = time.perf_counter()
    # Static samples go in as users give them; dynamic ones bring torch.export's own description.
    model = load(sample.exported()) if sample.dynamic_shapes else load(sample.module, sample.examples)
    imported = time.perf_counter()
    target = load_target("host")
    mod, _ = optimize(model.mod, target)
    mod, records = schedule(mod, target)
    library = build(mod, target, folder).library
    compiled = time.perf_counter()
    assert depends_on_input(sample), "the sample's outputs say nothing about its inputs"
    session = Session(library, model.signature, threads=threads)
    errors = [error_over_range(session, sample, inputs) for inputs in (sample.examples, *sample.others)]
    return Outcome(
        entry.name,
        sum(parameter.numel() for parameter in sample.module.parameters()),
        imported - start,
        compiled - imported,
        max(errors),
        median_ms(session, sample.examples, runs) if runs else float("nan"),
        Counter(record.rule for record in records),
    )


def depends_on_input(sample: Sample) -> bool:
    """Tell whether the module's outputs change with its first input by more than 1% of their range."""
    with torch.inference_mode():
        before = tree_leaves(sample.module(*sample.examples))
        first = sample.examples[0].flip(-1)
        after = tree_leaves(sample.module(first, *sample.examples[1:]))
    return all(
        float((a - b).abs().max() / (b.max() - b.min())) > 0.01 for a, b in zip(after, before, strict=True)
    )


def error_over_range(session: Session, sample: Sample, inputs: tuple) -> float:
    """Return the largest error of any output against PyTorch, over that output's range."""
    with torch.inference_mode():
        expected = [x.numpy() for x in tree_leaves(sample.module(*inputs)) if isinstance(x, torch.Tensor)]
    got = tree_leaves(session(*(x.numpy() for x in inputs)))
    assert [a.shape for a in got] == [a.shape for a in expected]
    assert [a.dtype for a in got] == [a.dtype for a in expected]
    assert all(np.isfinite(a).all() for a in got)
    return max(
        float(np.abs(a.astype("float64") - b.astype("float64")).max() / np.ptp(b.astype("float64")))
        for a, b in zip(got, expected, strict=True)
    )


def median_ms(session: Session, inputs: tuple, runs: int) -> float:
    """Return the median time of a run in milliseconds."""
    prepared = session.prepare([x.numpy() for x in inputs])
    times = []
    for turn in range(runs + 2):
        start = time.perf_counter()
        session.invoke(prepared)
        if turn >= 2:  # the first runs touch memory for the first time
            times.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times))
