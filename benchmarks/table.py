"""Measures a table of models against all peers and writes it down.

    python -m benchmarks.table [--models NAME ...] [--threads N] [--seconds S]
    python -m benchmarks.table --models resnet18 resnet18-int8 minilm-bf16

writes benchmarks/results/<cpu>.md and .json, and the table between the markers of README.md. A model that
was not measured now keeps its earlier row, so that one can be measured alone.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.cli.bench import all_cores, measure, remarks
from compiler.cli.console import Console
from compiler.deploy.benchmark import Plan
from compiler.deploy.peers import KILN, PEERS, RUNTIMES
from compiler.support.errors import KilnError
from compiler.support.files import atomic_path
from compiler.support.progress import note, watching

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"


@dataclass(frozen=True)
class Row:
    """What a row measures: the model, what all compute in, the data that int8 needs, and Kiln's scheme."""

    source: str
    precision: str = "fp32"
    calibrate: str | None = None
    quantize: str | None = None


_SOURCES = {
    "resnet18": "torchvision.models:resnet18",
    "resnet50": "torchvision.models:resnet50",
    "mobilenet_v2": "torchvision.models:mobilenet_v2",
    "mobilenet_v3_large": "torchvision.models:mobilenet_v3_large",
    "efficientnet_b0": "torchvision.models:efficientnet_b0",
    "squeezenet1_1": "torchvision.models:squeezenet1_1",
    "regnet_y_400mf": "torchvision.models:regnet_y_400mf",
    "vit_b_16": "torchvision.models:vit_b_16",
    "minilm": "benchmarks.models:minilm",
    "efficientnet_lite0": "examples.efficientnet_lite0:model",
}
_DATA = {
    "minilm": "benchmarks.data:sentences",
    "efficientnet_lite0": "benchmarks.data:photographs_lite",
}
_SCHEMES = {("minilm", "int8"): "int8-dynamic"}
"""Where the scheme named like the precision is not the one for the model."""

_INT8 = (
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "efficientnet_lite0",
    "squeezenet1_1",
    "minilm",
)
_BF16 = ("resnet18", "resnet50", "mobilenet_v2", "squeezenet1_1", "minilm")


def _rows(names: Iterable[str], precision: str) -> dict[str, Row]:
    return {
        f"{name}-{precision}": Row(
            _SOURCES[name],
            precision,
            _DATA.get(name, "benchmarks.data:photographs"),
            _SCHEMES.get((name, precision)),
        )
        for name in names
    }


MODELS: dict[str, Row] = {
    **{name: Row(source) for name, source in _SOURCES.items()},
    **_rows(_INT8, "int8"),
    **_rows(_BF16, "bf16"),
}
"""Rows by the name that ``--models`` takes."""


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, and return 1 if a model could not be measured."""
    parser = argparse.ArgumentParser(description="Kiln against its peers on a table of models.")
    parser.add_argument(
        "--models", nargs="+", default=list(MODELS), choices=list(MODELS), metavar="NAME",
        help=f"rows, all by default: {', '.join(MODELS)}",
    )  # fmt: skip
    parser.add_argument("--against", default=",".join(PEERS), help="peers, joined by commas")
    parser.add_argument("--threads", type=int, help="threads of each runtime; all physical cores by default")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each runtime is measured")
    options = parser.parse_args(arguments)
    failed = 0
    for name in options.models:
        print(f"\n{name}")
        try:
            with Console(sys.stderr) as console, watching(console):
                report = measure(_plan(MODELS[name], options))
        except KilnError as error:
            failed += 1
            print(f"{name} could not be measured: {error}", file=sys.stderr)
            continue
        print("\n".join(remarks(report)))
        # Each model is written as soon as it is measured: an interrupted run loses nothing.
        path = record(name.partition("-")[0], report.to_json(), RESULTS)
        write_readme(json.loads(path.read_text(encoding="utf-8")), ROOT / "README.md")
        note(f"wrote {path}")
    return 1 if failed else 0


def _plan(row: Row, options: argparse.Namespace) -> Plan:
    return Plan(
        row.source,
        tuple(options.against.split(",")),
        precision=row.precision,
        threads=all_cores(options.threads),
        seconds=options.seconds,
        calibrate=row.calibrate,
        quantize=row.quantize,
    )


def record(name: str, report: dict[str, Any], folder: Path) -> Path:
    """Put one report into the results of its CPU and thread count; return the JSON file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{slug(report['cpu'])}.json"
    known = kept(path, f"{name}, {report['precision']}, {report['threads']} threads", report)
    with atomic_path(path.with_suffix(".md")) as temporary:
        temporary.write_text(f"# {report['cpu']}\n\n{markdown(known)}\n", encoding="utf-8")
    return path


def kept(path: Path, title: str, row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Put a row into the JSON file of a table; return all its rows by their titles."""
    known: dict[str, dict[str, Any]] = {}
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
    known[title] = row
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return known


def slug(text: str) -> str:
    """Return `text` as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unknown"


def markdown(reports: dict[str, dict[str, Any]]) -> str:
    """Return the table: medians in milliseconds, the best peer's in bold, and Kiln's ratio to it."""
    names = [KILN, *(name for name in PEERS if any(name in r["runtimes"] for r in reports.values()))]
    lines = [
        f"| model | {' | '.join(RUNTIMES[name].title for name in names)} | Kiln / best peer |",
        f"|---|{'---:|' * (len(names) + 1)}",
    ]
    for title, report in reports.items():
        cells = [_cell(report, name) for name in names]
        ratio = "" if report["ratio"] is None else f"{report['ratio']:.2f}"
        lines.append(f"| {title} | {' | '.join(cells)} | {ratio} |")
    lines += ["", "Median milliseconds, one run for each row, runtimes interleaved. " + _versions(reports)]
    return "\n".join(lines)


def _cell(report: dict[str, Any], name: str) -> str:
    timing = report["runtimes"].get(name)
    if timing is None:
        lacks = report["precision"] in RUNTIMES[name].lacks
        return "failed" if name in report["failed"] and not lacks else ""
    text = f"{timing['median_ms']:.3g}" if timing["median_ms"] < 1000 else f"{timing['median_ms']:.0f}"
    if timing["wrong"]:
        return f"{text} (wrong)"
    return f"**{text}**" if name == report["best_peer"] else text


def _versions(reports: dict[str, dict[str, Any]]) -> str:
    found = {
        name: timing["version"] for report in reports.values() for name, timing in report["runtimes"].items()
    }
    return f"Versions: {', '.join(f'{name} {version}' for name, version in found.items())}."


def write_readme(reports: dict[str, dict[str, Any]], readme: Path) -> None:
    """Put the table into `readme`, see `write_between`."""
    cpu = next(iter(reports.values()))["cpu"]
    write_between(BEGIN, END, f"On {cpu}:\n\n{markdown(reports)}", readme)


def write_between(begin: str, end: str, text: str, readme: Path) -> None:
    """Replace what stands between two markers in `readme`.

    Raises:
        KilnError: the markers are not there.
    """
    before, found, rest = readme.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise KilnError(f"expected the markers '{begin}' and '{end}' in '{readme}'")
    with atomic_path(readme) as temporary:
        temporary.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
