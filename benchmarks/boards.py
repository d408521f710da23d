"""Runs bundles for boards under qemu and compares them with this machine's own.

    python -m benchmarks.boards [--models NAME ...] [--boards NAME ...]

writes the table between the markers of docs/deploy.md. What is compared are outputs for the same input: as a
part of the range of the output.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import compiler
from benchmarks.table import MODELS, ROOT, Row, write_between
from compiler.bundle import read
from compiler.deploy import load, relative_error
from compiler.driver import quantize
from compiler.support.files import private_folder
from compiler.target import load as load_target

BEGIN, END = "<!-- boards:begin -->", "<!-- boards:end -->"
BOARDS = ("rpi4", "rpi2", "riscv64", "x86-64-v2")
NAMES = ("efficientnet_lite0", "efficientnet_lite0-int8", "resnet18", "resnet18-int8", "minilm")


def compiled(row: Row, target: str, folder: Path) -> Path:
    """Compile a row of the table for a target, and return the bundle, quantized once for all targets."""
    source: str | Path = row.source
    if row.precision != "fp32":
        source = folder / "net.kq"
        if not source.exists():
            scheme = row.quantize or "int8"
            quantize(row.source, scheme=scheme, calibrate=row.calibrate, output=source, check=False)
    path = folder / f"{target}.kiln"
    compiler.compile(source, target=target, output=path, kind="aot", name="net", check=False)
    return path


def emulated(bundle: Path, inputs: Sequence[np.ndarray], folder: Path, threads: int = 2) -> list[np.ndarray]:
    """Run a bundle's runner on `inputs` under the target's emulator; return the outputs.

    Raises:
        subprocess.CalledProcessError: it fails.
    """
    opened = read(bundle)
    manifest = opened.manifest
    assert manifest.aot is not None
    for name in manifest.parts:
        path = folder / manifest.target.name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        opened.extract(name, path)
    home = folder / manifest.target.name
    runner = home / str(manifest.aot.runner)
    runner.chmod(0o755)
    given = [home / f"given_{number}.npy" for number in range(len(inputs))]
    for path, array in zip(given, inputs, strict=True):
        np.save(path, array)
    outputs = [home / f"made_{number}.npy" for number in range(len(manifest.signature.outputs))]
    words = [*load_target(manifest.target.name).toolchain.emulator, runner, "--threads", threads]
    words += ["--input", *given, "--output", *outputs]
    subprocess.run(list(map(str, words)), check=True, stderr=subprocess.DEVNULL)
    return [np.load(path) for path in outputs]


def _inputs(bundle: Path) -> list[np.ndarray]:
    """Return the golden inputs; where nothing was checked there are none, and images of noise do."""
    opened, random = read(bundle), np.random.default_rng(0)
    specs = opened.manifest.signature.inputs
    noise = [random.standard_normal([int(extent) for extent in spec.shape], np.float32) for spec in specs]
    return opened.golden()[0] or noise


def difference(row: Row, board: str, here: Path, folder: Path) -> float:
    """Return how far the board is off from the bundle for this machine, `here`, as a part of the range."""
    inputs = _inputs(here)
    wanted = load(here, 1).run_flat(inputs)
    got = emulated(compiled(row, board, folder), inputs, folder)
    return max(relative_error(one, other) for one, other in zip(got, wanted, strict=True))


def main() -> int:
    """Run, and write."""
    parser = argparse.ArgumentParser(description="Bundles for boards under qemu.")
    parser.add_argument("--models", nargs="+", default=list(NAMES), choices=list(MODELS), metavar="NAME")
    parser.add_argument("--boards", nargs="+", default=list(BOARDS), metavar="NAME")
    options = parser.parse_args()
    lines = [f"| model | {' | '.join(options.boards)} |", f"|---|{'---:|' * len(options.boards)}"]
    for name in options.models:
        row, cells = MODELS[name], []
        with private_folder() as folder:
            here = compiled(row, "host", folder)
            for board in options.boards:
                cells.append(f"{difference(row, board, here, folder):.2g}")
                print(name, board, cells[-1])
        lines.append(f"| {name} | {' | '.join(cells)} |")
    write_between(BEGIN, END, "\n".join(lines), ROOT / "docs" / "deploy.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
