"""How latency grows with the batch, the threads and the length of a sequence, beside the peers'.

    python -m benchmarks.growth [--rows NAME ...] [--seconds S]

writes benchmarks/results/<cpu>-growth.md and .json. A row that was not measured now keeps its numbers.
"""

from __future__ import annotations

import argparse
import json
import sys

from benchmarks.table import RESULTS, markdown, slug
from compiler.cli.bench import measure
from compiler.cli.console import Console
from compiler.deploy.benchmark import Plan
from compiler.deploy.peers import PEERS
from compiler.support.errors import KilnError
from compiler.support.files import atomic_path
from compiler.support.progress import watching

_IMAGES = {"resnet18": "torchvision.models:resnet18", "mobilenet_v2": "torchvision.models:mobilenet_v2"}
ROWS: dict[str, tuple[str, tuple[str, ...], int]] = {
    **{
        f"{name}, batch {batch}, {threads} threads": (source, (f"x={batch}x3x224x224:float32",), threads)
        for name, source in _IMAGES.items()
        for threads in (1, 2)
        for batch in (1, 2, 4, 8)
    },
    **{
        f"minilm, {length} tokens, {threads} threads": (f"benchmarks.models:minilm_{length}", (), threads)
        for threads in (1, 2)
        for length in (32, 128, 512)
    },
}
"""Source, inputs and threads by the name of the row."""


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, and return 1 if a row could not be measured."""
    parser = argparse.ArgumentParser(description="Latency against batch, threads and sequence length.")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="NAME")
    parser.add_argument("--against", default=",".join(PEERS), help="peers, joined by commas")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each runtime is measured")
    options = parser.parse_args(arguments)
    failed = 0
    for name in options.rows:
        source, inputs, threads = ROWS[name]
        peers = tuple(options.against.split(","))
        print(f"\n{name}")
        try:
            with Console(sys.stderr) as console, watching(console):
                plan = Plan(source, peers, inputs, threads=threads, seconds=options.seconds)
                report = measure(plan)
        except KilnError as error:
            failed += 1
            print(f"{name} could not be measured: {error}", file=sys.stderr)
            continue
        record(name, report.to_json())
    return 1 if failed else 0


def record(name: str, report: dict) -> None:
    """Put one report into the results of its CPU."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{slug(report['cpu'])}-growth.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known[name] = report
    known = {row: known[row] for row in ROWS if row in known}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    with atomic_path(path.with_suffix(".md")) as temporary:
        temporary.write_text(f"# {report['cpu']}: growth\n\n{markdown(known)}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
