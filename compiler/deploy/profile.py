"""Where the time of a compiled model goes: a row for each kernel, and what the virtual machine takes."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from compiler.bundle import KernelInfo
from compiler.deploy.peak import Peak
from compiler.deploy.session import Session

MACHINE = "vm.builtin."
"""How the names of the virtual machine's own functions begin."""

Layer = tuple[str, tuple[int, ...]]
"""What is one row: a kernel's name, and the shape of its output (of the last one, where it has several)."""


@dataclass(frozen=True)
class LayerTime:
    """All calls of a kernel that give an output of one `shape`, in one run of the model.

    `ms` is their time together in milliseconds, the median over runs, and `share` its part of all kernels'.
    `flops` and `bytes` are what they have to do, None if not known; `least_ms` is how long the machine
    takes for that at its peak, 0 if not known.
    """

    kernel: str
    shape: tuple[int, ...]
    rule: str
    calls: int
    ms: float
    share: float
    flops: float | None
    bytes: int | None
    least_ms: float

    @property
    def gflops(self) -> float | None:
        """Operations reached, in GFLOPS."""
        return None if self.flops is None or not self.ms else self.flops / self.ms / 1e6

    @property
    def gb_per_s(self) -> float | None:
        """Bytes of inputs and outputs over the time, in GB/s."""
        return None if self.bytes is None or not self.ms else self.bytes / self.ms / 1e6

    @property
    def of_peak(self) -> float | None:
        """The share of the machine's peak; above 1 where the data came from a cache, None if not known."""
        return self.least_ms / self.ms if self.least_ms and self.ms else None

    @property
    def lost_ms(self) -> float:
        """The time beyond what the machine takes at its peak; negative where the data came from a cache."""
        return self.ms - self.least_ms


@dataclass(frozen=True)
class Profile:
    """Where the time of a run goes, in milliseconds, medians over `runs` runs.

    `total_ms` is a run that nothing watches; `builtin_ms` and `builtin_calls` belong to the virtual machine's
    own functions. `layers` are sorted by the time lost, most first.
    """

    runs: int
    total_ms: float
    builtin_ms: float
    builtin_calls: int
    peak: Peak
    layers: tuple[LayerTime, ...]

    @property
    def kernels_ms(self) -> float:
        """The time of all kernels."""
        return sum(layer.ms for layer in self.layers)

    @property
    def overhead_ms(self) -> float:
        """What is left of the total: the virtual machine, and entering and leaving it."""
        return self.total_ms - self.kernels_ms

    def to_json(self) -> dict[str, Any]:
        """Return plain data, derived numbers included."""
        derived = ("gflops", "gb_per_s", "of_peak", "lost_ms")
        layers = [
            {**asdict(layer), **{name: getattr(layer, name) for name in derived}} for layer in self.layers
        ]
        return {
            **asdict(self),
            "kernels_ms": self.kernels_ms,
            "overhead_ms": self.overhead_ms,
            "layers": layers,
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Profile:
        """Return the profile of which `data` is `dataclasses.asdict`, after a journey as JSON."""
        layers = tuple(LayerTime(**{**layer, "shape": tuple(layer["shape"])}) for layer in data["layers"])
        return cls(**{**data, "peak": Peak(**data["peak"]), "layers": layers})


def profile(
    session: Session, inputs: Sequence[Any], kernels: Mapping[str, KernelInfo], peak: Peak, runs: int
) -> Profile:
    """Run `session` on `inputs`, in signature order, `runs` times plain and `runs` times watched in turn.

    `kernels` is what the manifest says about its kernels.

    Raises:
        InputError: a wrong number, shape or dtype.
    """
    prepared = session.prepare(inputs)
    session.invoke(prepared)
    totals: list[float] = []
    watched: list[_Run] = []
    for _ in range(runs):
        start = time.perf_counter()
        session.invoke(prepared)
        totals.append((time.perf_counter() - start) * 1e3)
        run = _Run(kernels)
        session.trace(prepared, run.watch)
        watched.append(run)
    layers = _layers(watched, kernels, peak)
    return Profile(
        runs,
        statistics.median(totals),
        statistics.median(run.builtin.ms for run in watched),
        round(statistics.median(run.builtin.calls for run in watched)),
        peak,
        tuple(sorted(layers, key=lambda layer: layer.lost_ms, reverse=True)),
    )


def kernel_seconds(session: Session, prepared: Sequence[Any], kernels: Container[str]) -> dict[str, float]:
    """Run `session` once, watched, on what it has `prepared`; return the seconds of all calls of each kernel.

    `kernels` has the names of those that count. What TVM adds to a call is in its time, see `_Run`.
    """
    run, found = _Run(kernels), defaultdict[str, float](float)
    session.trace(prepared, run.watch)
    for (name, _shape), calls in run.layers.items():
        found[name] += calls.ms / 1e3
    return dict(found)


@dataclass
class _Sum:
    """Calls, and their time in milliseconds."""

    calls: int = 0
    ms: float = 0.0

    def add(self, ms: float) -> None:
        self.calls += 1
        self.ms += ms


@dataclass
class _Run:
    """Times the calls of one run.

    TVM makes Python objects of a call's arguments before it says that the call ended, and as much of that
    is in its time. It does the same before it says that the call begins: then it is in the gap since the
    last call ended, which is taken off.
    """

    kernels: Container[str]
    layers: dict[Layer, _Sum] = field(default_factory=lambda: defaultdict(_Sum))
    builtin: _Sum = field(default_factory=_Sum)
    begun: list[tuple[float, float]] = field(default_factory=list)
    left: float | None = None

    def watch(self, name: str, before: bool, args: Sequence[Any]) -> None:
        """Note the begin or the end of a call."""
        now = time.perf_counter()
        if before:
            gap = 0.0 if self.left is None else now - self.left
            self.left = time.perf_counter()
            self.begun.append((self.left, gap))
            return
        start, gap = self.begun.pop()
        ms = max(0.0, now - start - gap) * 1e3
        if name in self.kernels:
            self.layers[name, _shape(args)].add(ms)
        elif name.startswith(MACHINE):
            self.builtin.add(ms)
        self.left = time.perf_counter()


def _shape(args: Sequence[Any]) -> tuple[int, ...]:
    """Return the shape of a kernel's last tensor: extents of a symbolic shape may follow its outputs."""
    shapes = [arg.shape for arg in args if hasattr(arg, "shape")]
    return tuple(int(extent) for extent in shapes[-1]) if shapes else ()


def _layers(runs: Sequence[_Run], kernels: Mapping[str, KernelInfo], peak: Peak) -> list[LayerTime]:
    found = dict.fromkeys(layer for run in runs for layer in run.layers)
    # A layer behind a condition need not be in every run.
    times = {layer: statistics.median(run.layers[layer].ms for run in runs) for layer in found}
    everything = sum(times.values())
    made = []
    for (kernel, shape), ms in times.items():
        info = kernels[kernel]
        calls = round(statistics.median(run.layers[kernel, shape].calls for run in runs))
        flops = None if info.flops is None else info.flops * calls
        size = None if info.bytes is None else info.bytes * calls
        least = 0.0 if flops is None or size is None else peak.least_ms(flops, size)
        share = ms / everything if everything else 0.0
        made.append(LayerTime(kernel, shape, info.rule, calls, ms, share, flops, size, least))
    return made
