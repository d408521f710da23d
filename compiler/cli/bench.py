"""kiln bench: Kiln against its peers in one run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from compiler.deploy.benchmark import Plan, Samples
    from compiler.deploy.benchmark_report import Report, Timing


def bench(
    model: Annotated[
        str, typer.Argument(help="package.module:factory, or a .pt2, .onnx or TorchScript file.")
    ],
    against: Annotated[
        str | None,
        typer.Option(
            help="Peers, joined by commas. Those not installed are listed, not fatal. "
            "By default all, and with --layers none.",
        ),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Show where Kiln's time goes: a row for each kernel.")
    ] = False,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", help="An input where the model declares none: NAME=1x3x224x224:float32."
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="What all compute in: fp32, int8 (each runtime quantizes by its own tools) or bf16."
        ),
    ] = "fp32",
    quantize: Annotated[
        str | None,
        typer.Option(
            help="The scheme or recipe that Kiln computes the precision with, such as int8-dynamic; the one "
            "of the same name by default."
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            "--calibrate",
            metavar="DATA",
            help="Data to calibrate int8 with and to judge int8 and bf16 by: an .npz file, a folder of "
            "images or module:function.",
        ),
    ] = None,
    transform: Annotated[
        str | None,
        typer.Option(help="How images become inputs: resize=256,crop=224,mean=0.5:0.5:0.5,std=0.2:0.2:0.2."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of each runtime; all physical cores by default.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the result to this file too.")] = None,
    seconds: Annotated[float, typer.Option(help="How long each runtime is measured.")] = 5.0,
    runs: Annotated[
        int | None, typer.Option(help="How often each runtime runs, in place of --seconds.")
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show why a peer failed, with its traceback.")
    ] = False,
) -> None:
    """Measure Kiln against its peers, interleaved, and compare all outputs with PyTorch.

    For example:

    - `kiln bench torchvision.models:resnet18 --threads 2`
    - `kiln bench model.onnx --against onnxruntime,openvino --json result.json`
    - `kiln bench torchvision.models:resnet18 --layers`
    - `kiln bench model.onnx --precision int8 --calibrate photos/ --transform resize=256,crop=224`
    - `kiln bench mynet:make --precision int8 --calibrate samples.npz --against openvino`
    - `kiln bench encoder.onnx --precision int8 --quantize int8-dynamic`
    - `kiln bench torchvision.models:resnet18 --precision bf16`
    """
    from rich.console import Console

    from compiler.cli.layers import show_layers
    from compiler.deploy.benchmark import Plan
    from compiler.deploy.benchmark_report import write_json
    from compiler.deploy.peers import KILN
    from compiler.support.errors import UsageError

    if json is not None and not json.absolute().parent.is_dir():
        raise UsageError(f"cannot write '{json}': there is no folder '{json.parent}'")
    peers = _peers(against, layers)
    plan = Plan(
        model, peers, tuple(inputs or ()), precision, all_cores(threads), seconds, runs, layers=layers,
        calibrate=calibrate, transform=transform, quantize=quantize,
    )  # fmt: skip
    report = measure(plan)
    if json is not None:
        write_json(report, json)
    console = Console(highlight=False)
    console.print(table(report))
    for line in remarks(report):
        console.print(line, markup=False)
    if report.layers is not None:
        show_layers(report.layers)
    if debug:
        for name, detail in report.details.items():
            console.print(f"\n{name}:\n{detail}", markup=False)
    if KILN in report.failed:
        raise typer.Exit(1)


def _peers(against: str | None, layers: bool) -> tuple[str, ...]:
    """Return the names of the peers; where the user named none, all or, for a look at Kiln's layers, none."""
    from compiler.deploy.peers import PEERS

    if against is None:
        return () if layers else PEERS
    return named_peers(against)


def named_peers(against: str) -> tuple[str, ...]:
    """Return the names in a list with commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in against.split(",") if name.strip()))


def all_cores(threads: int | None) -> int:
    """Return the number of threads: all physical cores if none was asked for."""
    from compiler.target_detect import usable_cores

    return usable_cores() if threads is None else threads


def measure(plan: Plan) -> Report:
    """Compile the model of `plan` and measure it with `compiler.deploy.benchmark`; see there.

    Raises:
        KilnError: the model cannot be loaded, compiled or run.
    """
    from compiler.deploy.benchmark import benchmark

    def compile_bundle(source: Path, bundle: Path, samples: Samples) -> None:
        from compiler import driver

        quantize = plan.quantize or (None if plan.precision == "fp32" else plan.precision)
        driver.compile(
            source, output=bundle, threads=plan.threads, quantize=quantize, calibrate=samples or None
        )

    return benchmark(plan, compile_bundle)


def table(report: Report) -> Table:
    """Return the runtimes as a table, fastest first, times in milliseconds."""
    from rich.table import Table

    from compiler.deploy.peers import KILN, RUNTIMES

    count = f"{report.threads} thread{'s' if report.threads > 1 else ''}"
    result = Table(title=f"{report.model}, {report.precision}, {count}, {report.cpu}", title_justify="left")
    result.add_column("runtime", no_wrap=True)
    errors = ("max error", "of range") if report.precision == "fp32" else ("SQNR dB", "same top-1")
    for heading in ("median ms", "p10", "p90", "min", *errors):
        result.add_column(heading, justify="right", no_wrap=True)
    for name, each in sorted(report.runtimes.items(), key=lambda item: item[1].median_ms):
        times = (each.median_ms, each.p10_ms, each.p90_ms, each.min_ms)
        result.add_row(
            RUNTIMES[name].title + (" WRONG" if each.wrong else ""),
            *(f"{time:#.3g}" if time < 100 else f"{time:.0f}" for time in times),
            *_errors(each, report.precision),
            style="bold" if name == KILN else "red" if each.wrong else "",
        )
    return result


def _errors(timing: Timing, precision: str) -> tuple[str, str]:
    """Return how far off a runtime is, in the measures that suit the precision."""
    if precision == "fp32":
        return f"{timing.max_abs_error:.1e}", f"{timing.error_over_range:.1e}"
    sqnr = "" if timing.sqnr_db is None else f"{timing.sqnr_db:.1f}"
    return sqnr, "" if timing.top1 is None else f"{timing.top1:.1%}"


def remarks(report: Report) -> list[str]:
    """Return sentences for below the table: the ratio, the data, and who could not take part."""
    lines = []
    if report.ratio is not None and report.best_peer is not None:
        lines.append(f"Kiln takes {report.ratio:.2f} times as long as the best peer, {report.best_peer}.")
    elif report.failed:
        lines.append("No peer took part." if report.best_peer is None else "There is no ratio without Kiln.")
    lines += [f"NOTE: {text}" for text in report.notes]
    if report.calibration is not None:
        data = report.calibration
        lines.append(f"Calibrated and judged with {data.origin}: {data.batches} samples.")
    settings = (f"{n} {t.version} ({t.setting}, {t.runs} runs)" for n, t in report.runtimes.items())
    lines.append(f"Measured: {', '.join(settings)}.")
    for name, timing in report.runtimes.items():
        without = {s: r["failed"] for s, r in timing.settings.items() if "failed" in r}
        lines += [f"{name} without '{setting}': {reason}" for setting, reason in without.items()]
    lines += [f"{name} is not in the table: {reason}" for name, reason in report.failed.items()]
    return lines
