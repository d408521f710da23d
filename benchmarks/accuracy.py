"""Measures what quantization costs in accuracy, beside the peers' own, and writes it down.

    python -m benchmarks.accuracy [--only lite0 digits minilm]

writes benchmarks/results/accuracy.md and .json. What was not measured now keeps its earlier numbers. Everyone
is calibrated with the same data and judged on other data:

    lite0    EfficientNet-Lite0 with its ImageNet weights on crops of photographs: first classes as in float
    digits   the network of examples/digits.py, with and without training for few bits: test accuracy
    minilm   MiniLM's sentence embeddings (mean over the words, of length 1): cosine to those in float
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import compiler
from compiler.compress.recipe import Recipe, as_recipe
from compiler.compress.scheme import scheme_named
from compiler.deploy.benchmark_workload import prepare
from compiler.deploy.peers import onnx_runtime, openvino_cpu
from compiler.deploy.peers.session import PeerError, Workload
from compiler.support.errors import KilnError
from compiler.support.files import atomic_path

RESULTS = Path(__file__).resolve().parent / "results" / "accuracy.json"

Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Row:
    """One way to compute a model.

    `value` is what the bar is about, in percent or as a mean cosine; `least` the least cosine. `bar` is the
    least `value` that is asked for, None where none is. `trouble` says why there are no numbers.
    """

    model: str
    runtime: str
    scheme: str
    metric: str
    value: float | None = None
    least: float | None = None
    samples: int = 0
    bar: float | None = None
    trouble: str = ""

    @property
    def verdict(self) -> str:
        """Whether the bar is met."""
        if self.trouble:
            return self.trouble
        if self.bar is None or self.value is None:
            return ""
        return "met" if self.value >= self.bar else "**missed**"


# EfficientNet-Lite0


def lite0() -> list[Row]:
    """Compare first classes with those in float: of Kiln, and of the peers' own int8."""
    from benchmarks.data import photographs_lite_evaluation
    from examples.efficientnet_lite0 import model

    module, inputs = model()
    images = list(photographs_lite_evaluation())
    expected = [_torch(module, [image])[0].argmax() for image in images]

    def agreement(run: Run) -> dict[str, Any]:
        hits = [run([image])[0].argmax() == best for image, best in zip(images, expected, strict=True)]
        return {"value": 100 * float(np.mean(hits)), "samples": len(images)}

    rows = []
    for scheme, bar in (
        ("int8", 97.0),
        (_adaptive("int8"), None),
        ("int8-tensor", None),
        ("int4", None),
        (_adaptive("int4"), None),
        ("bf16", None),
        ("fp16", None),
    ):
        about = ("lite0", "Kiln", _label(scheme), "same top-1 as float, %")
        rows.append(
            _row(
                about,
                bar,
                lambda s=scheme: agreement(_kiln(module, inputs, s, "benchmarks.data:photographs_lite")),
            )
        )
    for name, run in _peers("examples.efficientnet_lite0:model", "benchmarks.data:photographs_lite"):
        about = ("lite0", name, "int8", "same top-1 as float, %")
        rows.append(_row(about, None, lambda r=run: agreement(r())))
    return rows


def _peers(source: str, calibrate: str) -> list[tuple[str, Callable[[], Run]]]:
    """Return the peers' int8 models, each made when it is asked for."""
    folder = tempfile.mkdtemp(prefix="kiln-accuracy-")
    empty = Workload(Path(folder), source, 1, precision="int8", calibrate=calibrate)
    workload = prepare(empty, {"onnx"})
    found = []
    for runtime, name in ((onnx_runtime, "ONNX Runtime"), (openvino_cpu, "OpenVINO")):
        for variant, make in runtime.variants(workload).items():
            if "bf16" in variant or (runtime is openvino_cpu and "NNCF" not in variant):
                continue
            found.append((f"{name}: {variant}", lambda make=make: _session(make())))
    return found


def _session(session: Any) -> Run:
    def run(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        session.feed(list(arrays))
        session.run()
        return list(session.outputs())

    return run


# Digits


def digits() -> list[Row]:
    """Compare test accuracy: quantized after training, and trained for few bits."""
    from examples import digits as example

    module, inputs = example.model()
    in_float = example.accuracy(lambda arrays: _torch(module, arrays))
    metric, images = "test accuracy, %", 500
    rows = [Row("digits", "PyTorch", "float", metric, in_float, samples=images)]
    bars = {"int8": in_float - 0.3, "int4": in_float - 1}
    schemes = (
        "int8", "int8-tensor", "int4", "int3", "int2", "int8-weight-only", "int4-g32", "fp16", "bf16",
        "log2", "binary",
    )  # fmt: skip
    cases: list[tuple[str, str | Recipe, Any]] = [(scheme, scheme, module) for scheme in schemes]
    cases += [(_label(recipe), recipe, module) for recipe in (_adaptive("int3"), _adaptive("int2"))]
    cases += [
        ("log2, after training for it", "log2", example.model_for_log2()[0]),
        ("binary, after training for it", "binary", example.model_for_binary()[0]),
    ]
    for label, scheme, trained in cases:

        def measure(trained: Any = trained, scheme: str | Recipe = scheme) -> dict[str, Any]:
            run = _kiln(trained, inputs, scheme, example.calibration)
            return {"value": example.accuracy(run), "samples": images}

        rows.append(_row(("digits", "Kiln", label, metric), bars.get(label), measure))
    return rows


# MiniLM


def minilm() -> list[Row]:
    """Compare sentence embeddings with those in float."""
    from benchmarks.data import sentence_pairs
    from benchmarks.models import minilm as factory

    module, inputs = factory()
    sentences = list(sentence_pairs())
    exact = [_embedding(_torch(module, pair)[0], pair[1]) for pair in sentences]

    def cosines(run: Run) -> dict[str, Any]:
        found = [
            float(_embedding(run(list(pair))[0], pair[1]) @ wanted)
            for pair, wanted in zip(sentences, exact, strict=True)
        ]
        return {"value": float(np.mean(found)), "least": min(found), "samples": len(found)}

    rows = []
    schemes = ("int8", "int8-dynamic", "int8-weight-only", "int4-g128", "bf16", "fp16")
    for scheme in (*schemes, _adaptive("int4-g128"), Recipe(balance="off")):
        label = _label(scheme)
        bar = 0.995 if label in ("int8", "int8-dynamic", "int8-weight-only", "bf16") else None
        about = ("minilm", "Kiln", label, "mean cosine to float")
        rows.append(
            _row(about, bar, lambda s=scheme: cosines(_kiln(module, inputs, s, "benchmarks.data:sentences")))
        )
    for name, run in _peers("benchmarks.models:minilm", "benchmarks.data:sentences"):
        about = ("minilm", name, "int8", "mean cosine to float")
        rows.append(_row(about, None, lambda r=run: cosines(r())))
    return rows


def _embedding(hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean over the words in use, of length 1, as sentence encoders are used."""
    mean = (hidden * mask[..., None]).sum(1)[0] / mask.sum()
    return np.asarray(mean / np.linalg.norm(mean), np.float64)


# What they have in common


def _torch(module: Any, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    import torch

    with torch.no_grad():
        given = module(*map(torch.from_numpy, arrays))
    if isinstance(given, torch.Tensor):
        return [given.numpy()]
    return [each.numpy() for each in (given.values() if hasattr(given, "values") else given)]


def _kiln(module: Any, inputs: Any, scheme: str | Recipe, calibrate: Any) -> Run:
    recipe = as_recipe(scheme)
    data = calibrate if recipe.scheme.needs_data or recipe.rounding == "adaptive" else None
    made = compiler.compile(module, inputs, quantize=recipe, calibrate=data, threads=1)
    assert made.session is not None
    return made.session.run_flat


def _adaptive(scheme: str) -> Recipe:
    return Recipe(scheme=scheme_named(scheme), rounding="adaptive")


def _label(scheme: str | Recipe) -> str:
    if isinstance(scheme, str):
        return scheme
    return f"{scheme.scheme.name}, {'adaptive' if scheme.rounding == 'adaptive' else 'not balanced'}"


def _row(about: tuple[str, str, str, str], bar: float | None, measure: Callable[[], dict[str, Any]]) -> Row:
    """Measure one row, or say why that cannot be done."""
    model, runtime, scheme, metric = about
    print(f"{model}: {runtime}, {scheme}", file=sys.stderr, flush=True)
    try:
        row = Row(model, runtime, scheme, metric, bar=bar, **measure())
    except (KilnError, PeerError) as error:
        row = Row(model, runtime, scheme, metric, bar=bar, trouble=str(error).split(";")[0])
    print(f"    {row.value} {row.verdict}", file=sys.stderr, flush=True)
    return row


MODELS: dict[str, Callable[[], list[Row]]] = {"lite0": lite0, "digits": digits, "minilm": minilm}


def _table(rows: Sequence[Row]) -> str:
    lines = [
        "| model | runtime | scheme | metric | value | least | samples | bar | |",
        "|---|---|---|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        digits = 5 if "cosine" in row.metric else 1
        numbers = ["" if n is None else f"{n:.{digits}f}" for n in (row.value, row.least, row.bar)]
        value, least, bar = numbers
        lines.append(
            f"| {row.model} | {row.runtime} | {row.scheme} | {row.metric} | {value} | {least} | "
            f"{row.samples or ''} | {bar} | {row.verdict} |"
        )
    return "\n".join(lines) + "\n"


def _earlier() -> list[Row]:
    if not RESULTS.exists():
        return []
    return [Row(**each) for each in json.loads(RESULTS.read_text(encoding="utf-8"))]


def write(measured: Sequence[Row]) -> None:
    """Write what was measured; models that were not keep their rows."""
    new = {row.model for row in measured}
    rows = [row for row in _earlier() if row.model not in new] + list(measured)
    rows.sort(key=lambda row: list(MODELS).index(row.model))
    RESULTS.parent.mkdir(exist_ok=True)
    texts = {".json": json.dumps([asdict(row) for row in rows], indent=1), ".md": _table(rows)}
    for suffix, text in texts.items():
        with atomic_path(RESULTS.with_suffix(suffix)) as path:
            path.write_text(text, encoding="utf-8")


def main() -> int:
    """Measure what the command line asks for; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    rows: list[Row] = []
    for name in parser.parse_args().only:
        rows += MODELS[name]()
        write([row for row in rows if row.model == name])
    print(_table(rows))
    return int(any(row.verdict == "**missed**" for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
