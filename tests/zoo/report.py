"""Takes the whole zoo through Kiln and writes the table of docs/zoo.md: `make zoo`.

    python -m tests.zoo.report [--models NAME ...] [--threads N]

Each model has a process of its own: one that crashes fails alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from compiler.support.files import atomic_path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "zoo.md"
BEGIN, END = "<!-- zoo:begin -->", "<!-- zoo:end -->"
_SECONDS = 1800


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Run the models; return 1 if one of them is wrong or fails."""
    from tests.zoo.models import ZOO

    parser = argparse.ArgumentParser(description="Every model of the zoo against PyTorch.")
    parser.add_argument("--models", nargs="+", default=list(ZOO), choices=list(ZOO), metavar="NAME")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        return _child(options.child, options.threads)
    rows = {}
    for name in options.models:
        rows[name] = _in_own_process(name, options.threads)
        say(_line(name, rows[name]))
    write(rows, list(ZOO), DOCUMENT)
    bad = [name for name, row in rows.items() if not row["right"]]
    say(
        f"{len(rows) - len(bad)} of {len(rows)} models equal PyTorch"
        + (f"; not: {', '.join(bad)}" if bad else "")
    )
    return 1 if bad else 0


def _child(name: str, threads: int | None) -> int:
    """Take one model through and print its row as JSON on the last line."""
    import torch

    from compiler.target_detect import usable_cores
    from tests.zoo.harness import TOLERANCE, take_through
    from tests.zoo.models import ZOO

    count = usable_cores() if threads is None else threads
    torch.set_num_threads(count)
    with tempfile.TemporaryDirectory() as folder:
        outcome = take_through(ZOO[name], Path(folder), count, runs=10)
    row = {**vars(outcome), "right": outcome.error <= TOLERANCE, "rules": dict(outcome.rules)}
    say("\n" + json.dumps(row))
    return 0


def _in_own_process(name: str, threads: int | None) -> dict:
    command = [sys.executable, "-m", "tests.zoo.report", "--child", name]
    command += [] if threads is None else ["--threads", str(threads)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return {"right": False, "failed": f"took more than {_SECONDS} s"}
    if result.returncode == 0:
        return json.loads(result.stdout.strip().splitlines()[-1])
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    return {"right": False, "failed": (lines[-1] if lines else f"exit code {result.returncode}")[:200]}


def _line(name: str, row: dict) -> str:
    if "failed" in row:
        return f"FAILED {name}: {row['failed']}"
    word = "equal " if row["right"] else "WRONG "
    rules = coverage(row["rules"])
    return f"{word} {name}: error {row['error']:.1e} of the range, {row['kiln_ms']:.2f} ms, {rules}"


def coverage(rules: dict) -> str:
    """Say how many kernels the fallback did not have to take."""
    counts = Counter(rules)
    total = sum(counts.values())
    return f"{total - counts['fallback']} of {total} kernels"


def markdown(rows: dict) -> str:
    """Return the table of docs/zoo.md."""
    lines = [
        "| model | parameters | import s | compile s | error / range | Kiln ms | own rule |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for name, row in rows.items():
        if "failed" in row:
            lines.append(f"| {name} | | | | | | failed: {row['failed'].replace('|', '/')} |")
            continue
        error = f"{row['error']:.0e}" + ("" if row["right"] else " (wrong)")
        lines.append(
            f"| {name} | {row['parameters'] / 1e6:#.3g} M | {row['import_s']:.1f} | {row['compile_s']:.1f} "
            f"| {error} | {row['kiln_ms']:.2f} | {coverage(row['rules'])} |"
        )
    return "\n".join(lines)


def write(rows: dict, order: list[str], document: Path) -> None:
    """Put `rows` between the markers of `document`; models that were not run keep their rows."""
    text = document.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    old, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"expected the markers '{BEGIN}' and '{END}' in {document}")
    kept = {line.split("|")[1].strip(): line for line in old.splitlines() if line.startswith("| ")}
    head, *new = [line for line in markdown(rows).splitlines() if line.startswith("|")]
    rule, *new = new
    kept.update({line.split("|")[1].strip(): line for line in new})
    table = "\n".join([head, rule, *(kept[name] for name in order if name in kept)])
    with atomic_path(document) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
