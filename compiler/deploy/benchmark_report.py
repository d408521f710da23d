"""The result of a benchmark."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compiler.compress.facts import DataFacts
from compiler.deploy.benchmark_accuracy import Accuracy
from compiler.deploy.peers import KILN
from compiler.deploy.profile import Profile


@dataclass(frozen=True)
class Timing:
    """One runtime's result; times in milliseconds, `setup_s` in seconds.

    `p10_ms` and `p90_ms` are percentiles of all runs. `max_abs_error` is against the original, over all
    outputs and samples; `error_over_range` divides by the range of the output it occurs in. For `sqnr_db` and
    `top1` see `compiler.deploy.benchmark_accuracy`. `setting` is the one that won among the peer's,
    `settings` what was found of each: `ms`, `sqnr_db` and `wrong`, or why it `failed`.
    """

    median_ms: float
    min_ms: float
    p10_ms: float
    p90_ms: float
    runs: int
    max_abs_error: float
    error_over_range: float
    wrong: bool
    setting: str
    setup_s: float
    version: str
    sqnr_db: float | None = None
    top1: float | None = None
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """A benchmark's result. `failed` maps runtimes that could not take part to the reason.

    `ratio` is Kiln's median over the best right peer's: below 1, Kiln is faster. None without a peer.
    `layers` says where Kiln's time goes, None if that was not asked. `calibration` is what is known
    about the calibration data, None without any; `notes` are for the reader.
    """

    model: str
    precision: str
    threads: int
    cpu: str
    runtimes: dict[str, Timing]
    failed: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    layers: Profile | None = None
    calibration: DataFacts | None = None
    notes: tuple[str, ...] = ()

    @property
    def best_peer(self) -> str | None:
        """The peer with the least median among those whose outputs are right."""
        right = {n: t.median_ms for n, t in self.runtimes.items() if n != KILN and not t.wrong}
        return min(right, key=right.__getitem__) if right else None

    @property
    def ratio(self) -> float | None:
        """Kiln's median over the best peer's."""
        best = self.best_peer
        if best is None or KILN not in self.runtimes:
            return None
        return self.runtimes[KILN].median_ms / self.runtimes[best].median_ms

    def to_json(self) -> dict[str, Any]:
        """Return plain data; numbers that JSON lacks (infinite errors) become None."""
        return {
            "model": self.model,
            "precision": self.precision,
            "threads": self.threads,
            "cpu": self.cpu,
            "runtimes": {name: _plain(vars(timing)) for name, timing in self.runtimes.items()},
            "best_peer": self.best_peer,
            "ratio": self.ratio,
            "failed": self.failed,
            "calibration": None if self.calibration is None else asdict(self.calibration),
            "notes": list(self.notes),
            **({} if self.layers is None else {"layers": self.layers.to_json()}),
        }


def timing(times_ms: Sequence[float], built: dict[str, Any], precision: str) -> Timing:
    """Summarize the runs of one runtime; `built` is its worker's answer to "build"."""
    accuracy = Accuracy(**built["accuracy"])
    return Timing(
        median_ms=float(np.median(times_ms)),
        min_ms=float(np.min(times_ms)),
        p10_ms=float(np.percentile(times_ms, 10)),
        p90_ms=float(np.percentile(times_ms, 90)),
        runs=len(times_ms),
        max_abs_error=accuracy.max_abs_error,
        error_over_range=accuracy.error_over_range,
        wrong=not accuracy.is_right(precision),
        setting=str(built["setting"]),
        setup_s=float(built["setup_s"]),
        version=str(built["version"]),
        sqnr_db=accuracy.sqnr_db,
        top1=accuracy.top1,
        settings=built["settings"],
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(report: Report, path: Path) -> None:
    """Write the report as JSON, whole or not at all."""
    from compiler.support.files import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
