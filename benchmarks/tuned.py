"""Measures what the shipped tuning logs are worth: untuned and tuned builds of models in turns.

    python -m benchmarks.tuned [--models NAME ...] [--threads N] [--seconds S]

writes benchmarks/results/<cpu>-tuned.json, and the table between the markers of README.md. A model that was
not measured now keeps its earlier row. Logs hold for one device: elsewhere tune first (`kiln tune`).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.table import MODELS, RESULTS, ROOT, Row, kept, slug, write_between
from compiler import frontend
from compiler.deploy import Session, choose_threads, use_threads
from compiler.deploy.benchmark import cpu_name
from compiler.deploy.peak import interleaved_seconds
from compiler.driver import build_module, host_builder
from compiler.driver_compress import compress, make_request
from compiler.frontend.random_inputs import fresh_inputs
from compiler.schedule.tuned import Tuned, read_tuned
from compiler.support.files import private_folder
from compiler.target import HOST, load

BEGIN, END = "<!-- tuning:begin -->", "<!-- tuning:end -->"


@dataclass(frozen=True)
class Gain:
    """Median milliseconds of one run, and how many of the kernels were tuned."""

    untuned: float
    tuned: float
    kernels: int
    of: int


def measure(row: Row, threads: int, seconds: float) -> Gain:
    """Build a model untuned and tuned, and measure both in turns."""
    target = load(HOST)
    known, _ = read_tuned(target, threads)
    with private_folder() as folder:
        model = frontend.load(row.source)
        scheme = row.quantize or (None if row.precision == "fp32" else row.precision)
        if scheme is not None:
            data = row.calibrate if scheme == "int8" else None
            model = compress(
                model, make_request(scheme, data, check=False), host_builder(folder / "host")
            ).model
        arrays, runs, tuned = fresh_inputs(model, 0), [], 0
        for name, logs in (("untuned", Tuned()), ("tuned", known)):
            built, facts = build_module(model.mod, target, folder / name, tuned=logs)
            session = Session(built.library, model.signature, threads=threads)
            runs.append(lambda session=session: session.run_flat(arrays))
            tuned = sum(kernel.origin == "tuned" for kernel in facts["kernels"])
        before, after = interleaved_seconds(runs, seconds)
        return Gain(before * 1e3, after * 1e3, tuned, len(facts["kernels"]))


def markdown(gains: dict[str, dict[str, Any]], cpu: str) -> str:
    """Return the table."""
    lines = [
        f"On {cpu}:",
        "",
        "| model | untuned ms | tuned ms | tuned / untuned | kernels tuned |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, row in gains.items():
        gain = Gain(**row)
        lines.append(
            f"| {name} | {gain.untuned:.3g} | {gain.tuned:.3g} | {gain.tuned / gain.untuned:.2f} | "
            f"{gain.kernels} of {gain.of} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Untuned against tuned builds.")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS), metavar="NAME")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    threads = choose_threads(options.threads)
    use_threads(threads)
    path = RESULTS / f"{slug(cpu_name())}-tuned.json"
    for name in options.models:
        gain = measure(MODELS[name], threads, options.seconds)
        print(f"{name}: {gain.untuned:.3f} ms untuned, {gain.tuned:.3f} ms tuned")
        known = kept(path, f"{name}, {threads} threads", asdict(gain))
        write_between(BEGIN, END, markdown(known, cpu_name()), ROOT / "README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
