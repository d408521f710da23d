"""Counts how many trials a second Kiln measures, and TVM's `MetaScheduleTuneIRMod` on the same kernels.

    python -m benchmarks.tuning_rate [--model resnet18] [--seconds 180] [--rounds 2]

Both get the fused kernels of the same network, two threads and the same time, in turns, each in a process of
its own. A trial counts once it is measured. Upstream says in its log when a batch of one kernel is measured
(its database has none of it before that kernel's turn comes again), so its rate is that at its last batch;
Kiln's leaders, which are measured again at the end, count once. The start of processes counts for both.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.table import MODELS, RESULTS
from compiler.deploy.benchmark import cpu_name
from compiler.schedule.records import AGAIN
from compiler.support.files import atomic_path, private_folder

_LOOK = 0.2
"""Seconds between two looks at what upstream has written down."""


@dataclass(frozen=True)
class Rate:
    """What was measured in `seconds`: `trials`, of which `failed` have no time."""

    trials: int
    failed: int
    seconds: float

    @property
    def rate(self) -> float:
        """Trials with a time, a second."""
        return (self.trials - self.failed) / self.seconds if self.seconds else 0.0


def kiln(source: str, threads: int, seconds: float, folder: Path) -> None:
    """Tune with Kiln for so long."""
    from compiler.driver_tune import Quiet, tune_module
    from compiler.target import load
    from compiler.tune.session import Session

    session = Session("rate", seconds=seconds)
    tune_module(
        _optimized(source),
        load("host"),
        folder / "log.jsonl",
        session,
        Quiet(),
        threads=threads,
        builders=threads,
    )


def metaschedule(source: str, threads: int, seconds: float, folder: Path) -> None:
    """Tune with `MetaScheduleTuneIRMod`, until somebody ends this process."""
    del seconds
    import tvm
    from tvm.relax.transform import MetaScheduleTuneIRMod

    from compiler.target import load

    logging.getLogger("tvm").setLevel(logging.ERROR)
    target = tvm.target.Target({**load("host").tvm_target().export(), "num-cores": threads})
    with target, tvm.transform.PassContext(opt_level=3):
        MetaScheduleTuneIRMod({}, str(folder), max_trials_global=1_000_000)(_optimized(source))


def _optimized(source: str) -> Any:
    from compiler import frontend
    from compiler.passes import optimize
    from compiler.target import load

    return optimize(frontend.load(source).mod, load("host"))[0]


def count_kiln(folder: Path) -> tuple[int, int]:
    """Return the trials in Kiln's log, and how many failed."""
    path = folder / "log.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    trials = [record for record in records if record.get("note") != AGAIN]
    return len(trials), sum(record["status"] != "ok" for record in trials)


def count_metaschedule(folder: Path) -> tuple[int, int]:
    """Return the trials that upstream's scheduler has measured; which failed is not in its log yet."""
    measured, sent = 0, 0
    for path in (folder / "logs").glob("*task_scheduler.log"):
        for line in path.read_text().splitlines():
            if match := _SENT.search(line):
                sent = int(match["count"])
            elif "TaskScheduler picks Task" in line:
                measured, sent = measured + sent, 0
    return measured, 0


_SENT = re.compile(r"Sending (?P<count>\d+) valid sample\(s\) to runner")

Side = tuple[Callable[[str, int, float, Path], None], Callable[[Path], tuple[int, int]]]
SIDES: dict[str, Side] = {"kiln": (kiln, count_kiln), "metaschedule": (metaschedule, count_metaschedule)}


def measure(name: str, source: str, threads: int, seconds: float) -> Rate:
    """Let one side tune for so long; return what it had written down, and when it last did."""
    run, count = SIDES[name]
    with private_folder() as folder:
        process = multiprocessing.get_context("spawn").Process(
            target=run, args=(source, threads, seconds, folder)
        )
        process.start()
        begin = time.monotonic()
        found, last = (0, 0), 0.0
        while process.is_alive() and time.monotonic() - begin < seconds:
            time.sleep(_LOOK)
            now = count(folder)
            if now[0] > found[0]:
                found, last = now, time.monotonic() - begin
        _end(process)
    return Rate(*found, last)


def _end(process: Any) -> None:
    """End a process and all that it has started."""
    import psutil

    if process.is_alive():
        children = psutil.Process(process.pid).children(recursive=True)
        for each in [psutil.Process(process.pid), *children]:
            each.kill()
    process.join()


def main() -> None:
    """Measure both sides in turns, and write down the rates."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument(
        "--model",
        default="resnet18",
        choices=[name for name, row in MODELS.items() if row.precision == "fp32"],
    )
    options.add_argument("--seconds", type=float, default=180.0)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--threads", type=int, default=2)
    chosen = options.parse_args()
    found: dict[str, list[Rate]] = {name: [] for name in SIDES}
    for _ in range(chosen.rounds):
        for name in SIDES:
            rate = measure(name, MODELS[chosen.model].source, chosen.threads, chosen.seconds)
            counts = f"{rate.trials} trials in {rate.seconds:.0f} s, {rate.failed} failed"
            print(f"{name}: {counts}: {rate.rate:.2f}/s")
            found[name].append(rate)
    middle = {name: statistics.median(each.rate for each in rates) for name, rates in found.items()}
    ratio = middle["kiln"] / middle["metaschedule"] if middle["metaschedule"] else float("inf")
    print(
        f"{chosen.model}: {middle['kiln']:.2f} and {middle['metaschedule']:.2f} trials/s: {ratio:.1f} times"
    )
    text = json.dumps(
        {
            "cpu": cpu_name(),
            "model": chosen.model,
            "threads": chosen.threads,
            "rates": middle,
            "ratio": ratio,
            "rounds": {name: [asdict(each) for each in rates] for name, rates in found.items()},
        },
        indent=1,
    )
    with atomic_path(RESULTS / "tuning_rate.json") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
