"""Measures what an ahead-of-time library takes beside its kernels: time, code, memory; and peers' memory.

    python -m benchmarks.deploy [--models NAME ...] [--threads N] [--seconds S]

writes the table between the markers of docs/deploy.md. Latency is that of the runner, and of the library in a
Python process, beside that of the same kernels under TVM's virtual machine in a Python process; the three
take turns. Memory is the greatest resident memory of a process that loads the model and runs it: of Kiln the
runner, of peers a Python process, which is shown without any, too.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import compiler
from benchmarks.table import MODELS, RESULTS, ROOT, Row, kept, write_between
from compiler import frontend
from compiler.bundle import AotInfo, read
from compiler.deploy import choose_threads
from compiler.deploy.benchmark import cpu_name
from compiler.frontend.random_inputs import fresh_inputs
from compiler.support.files import private_folder

BEGIN, END = "<!-- deploy:begin -->", "<!-- deploy:end -->"
PAGE = ROOT / "docs" / "deploy.md"
NAMES = ("resnet18", "mobilenet_v2", "efficientnet_lite0", "minilm", "resnet18-int8", "mobilenet_v2-int8")
_MIB = 1 << 20

_PEERS = {
    "": "",
    "onnxruntime": "import onnxruntime as o; s = o.InferenceSession(path); s.run(None, feeds)",
    "openvino": "import openvino as o; m = o.Core().compile_model(path, 'CPU'); m(feeds)",
}
_HEAD = "import sys, numpy as np; path = sys.argv[1]; feeds = dict(np.load(sys.argv[2])); "
_LATENCY = """
import sys, time, numpy as np
from pathlib import Path
from compiler.bundle import read
from compiler.deploy import load
path, threads, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
session = load(path, threads)
prepared = session.prepare(read(path).golden()[0])
for _ in range(10):
    session.invoke(prepared)
times, end = [], time.perf_counter() + seconds
while time.perf_counter() < end:
    begin = time.perf_counter()
    session.invoke(prepared)
    times.append(time.perf_counter() - begin)
print(np.median(times) * 1e3)
"""
_TURNS = 8
_FOOT = "; print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"


def measure(row: Row, threads: int, seconds: float) -> dict[str, Any]:
    """Measure one model."""
    with private_folder() as folder:
        paths = [folder / f"{kind}.kiln" for kind in ("aot", "tvm")]
        for path in paths:
            options: dict[str, Any] = {"quantize": row.quantize or "int8", "calibrate": row.calibrate}
            if row.precision == "fp32":
                options = {}
            compiler.compile(row.source, output=path, kind=path.stem, threads=threads, check=False, **options)
        aot = read(paths[0]).manifest.aot
        assert aot is not None
        runner = _unpacked(paths[0], folder / "out") / str(aot.runner)
        turns = [_turn(paths, runner, threads, seconds / _TURNS) for _ in range(_TURNS)]
        machine, python, alone = (statistics.median(each) for each in zip(*turns, strict=True))
        found = {
            "aot": alone,
            "in_python": python,
            "vm": machine,
            "weights": aot.weight_bytes / _MIB,
            "arena": aot.arena_bytes / _MIB,
            "over_least": aot.arena_bytes / aot.arena_least,
            "code": _own_code(paths[0], aot, folder),
            "runner": _bench(runner, threads, 20, r"peak memory (\S+) MiB"),
        }
        if row.precision == "fp32":
            found |= _peers(row.source, folder)
        return found


def _turn(paths: list[Path], runner: Path, threads: int, seconds: float) -> tuple[float, float, float]:
    """Return the median ms of the virtual machine, of the library in Python, and of the runner."""
    aot, machine = paths
    of_machine, of_python = (_median(path, threads, seconds) for path in (machine, aot))
    runs = max(20, round(seconds * 1e3 / of_python))
    return of_machine, of_python, _bench(runner, threads, runs, r"median (\S+) ms")


def _median(bundle: Path, threads: int, seconds: float) -> float:
    """Return the median ms of a process of its own: idle threads of another pool would disturb it."""
    words = [sys.executable, "-c", _LATENCY, bundle, threads, seconds]
    return float(subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True).stdout)


def _own_code(bundle: Path, aot: AotInfo, folder: Path) -> float:
    """Return the KiB of code and tables that are not kernels': of the objects in the static library."""
    assert aot.archive is not None
    read(bundle).extract(aot.archive, folder / aot.archive)
    done = subprocess.run(["size", folder / aot.archive], capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    return sum(int(row[0]) + int(row[1]) for row in rows if row[5] != "kernels.o") / 1024


def _unpacked(bundle: Path, folder: Path) -> Path:
    words = [sys.executable, "-m", "compiler.cli", "-q", "unpack", bundle, folder]
    subprocess.run(list(map(str, words)), stdout=subprocess.DEVNULL, check=True)
    return folder


def _bench(runner: Path, threads: int, runs: int, number: str) -> float:
    """Return a number of what `runner --bench` says."""
    words = [runner, "--bench", runs, "--threads", threads]
    said = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True).stdout
    return float(re.search(number, said)[1])  # type: ignore[index]


def _peers(source: str, folder: Path) -> dict[str, float]:
    """Return the MiB of Python processes that run the model as ONNX, and of one that runs nothing."""
    import numpy as np
    import torch

    model = frontend.load(source)
    arrays, names = fresh_inputs(model, 0), [spec.name for spec in model.signature.inputs]
    path = folder / "model.onnx"
    torch.onnx.export(model.program.program, (), path, input_names=names, verbose=False)
    np.savez(folder / "feeds.npz", **dict(zip(names, arrays, strict=True)))
    found = {}
    for name, code in _PEERS.items():
        words = [sys.executable, "-c", f"{_HEAD}{code or 'pass'}{_FOOT}", path, folder / "feeds.npz"]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found[name or "python"] = int(done.stdout.split()[-1]) / 1024
    return found


def markdown(rows: dict[str, dict[str, Any]], cpu: str) -> str:
    """Return the table."""
    lines = [
        f"On {cpu}; latency in ms and as a part of the virtual machine's, memory in MiB:",
        "",
        "| model | TVM's VM | runner | library in Python | arena / least | code beside kernels, KiB "
        "| weights, arena | runner's memory | ONNX Runtime's | OpenVINO's | Python alone |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        peers = [f"{row[each]:.0f}" if each in row else "" for each in ("onnxruntime", "openvino", "python")]
        lines.append(
            f"| {name} | {row['vm']:.3g} | {_share(row, 'aot')} | {_share(row, 'in_python')} | "
            f"{row['over_least']:.3f} | {row['code']:.1f} | {row['weights'] + row['arena']:.1f} | "
            f"{row['runner']:.1f} | {' | '.join(peers)} |"
        )
    return "\n".join(lines)


def _share(row: dict[str, Any], which: str) -> str:
    return f"{row[which]:.3g} = {row[which] / row['vm']:.3f}"


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="What an ahead-of-time library takes.")
    parser.add_argument("--models", nargs="+", default=list(NAMES), choices=list(MODELS), metavar="NAME")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seconds", type=float, default=12.0)
    options = parser.parse_args()
    threads = choose_threads(options.threads)
    path = RESULTS / "deploy.json"
    for name in options.models:
        found = measure(MODELS[name], threads, options.seconds)
        print(name, {key: round(value, 3) for key, value in found.items()})
        known = kept(path, f"{name}, {threads} threads", found)
        write_between(BEGIN, END, markdown(known, cpu_name()), PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
