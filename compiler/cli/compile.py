"""kiln compile: a model becomes a bundle."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer


def compile_(
    model: Annotated[
        str, typer.Argument(help="package.module:factory, or a .pt2, .onnx or TorchScript file.")
    ],
    target: Annotated[
        str, typer.Option("--target", "-t", help="A name from `kiln targets`, or a descriptor (.yaml).")
    ] = "host",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The bundle to write; by default MODEL-TARGET.kiln in this folder."
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="An input where the model declares none: NAME=1x3x224x224:float32; a letter such as N for "
            "a dimension that may vary.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Threads to run on; by default one per physical core of the machine that runs it."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Compare the result with the original on random inputs."),
    ] = True,
    seed: Annotated[int, typer.Option(help="Seed of those inputs.")] = 0,
    dump_ir: Annotated[
        Path | None, typer.Option("--dump-ir", help="Write the IR after each pass, numbered, to this folder.")
    ] = None,
    state: Annotated[
        str,
        typer.Option(help="A model that changes its buffers: refuse it, or make its state explicit inputs."),
    ] = "refuse",
    quantize: Annotated[
        str | None,
        typer.Option("--quantize", help="A scheme such as int8 or int8-tensor, or a recipe (.yaml)."),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            "--calibrate",
            help="Data like what the model will see, to quantize with: a .npz file with an array for each "
            "input, a folder of images, or module:function that yields inputs.",
        ),
    ] = None,
    transform: Annotated[
        str | None,
        typer.Option(
            help="What becomes of the images in the folder: "
            "resize=256,crop=224,mean=0.485:0.456:0.406,std=0.229:0.224:0.225."
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            help="How much lower the score may be than in float; sensitive layers stay in float until it is.",
        ),
    ] = None,
    evaluate: Annotated[
        str | None,
        typer.Option(
            help="module:function that gives the score, higher is better, of a function from inputs to "
            "outputs; by default the agreement with float on the data, in percent."
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a page about the quantization to this file (.html).")
    ] = None,
) -> None:
    """Compile a model into one file that runs on the target.

    For example:

    - `kiln compile torchvision.models:resnet18 --target host -o resnet18.kiln`
    - `kiln compile net.onnx --target rpi4 --input image=Nx3x224x224`
    - `kiln compile mynet.py:make --input x=1x16:float32 --dump-ir ir/`
    - `kiln compile mynet.py:make --quantize int8 --calibrate data.npz --max-drop 0.5`
    """
    from compiler.driver import compile as run

    path = output or Path(default_name(model, target))
    run(
        model,
        target=target,
        output=path,
        threads=threads,
        check=check,
        seed=seed,
        dump_ir=dump_ir,
        inputs=inputs or None,
        state=state,
        quantize=quantize,
        calibrate=calibrate,
        transform=transform,
        max_drop=max_drop,
        evaluate=evaluate,
        report=report,
    )
    typer.echo(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")


def default_name(model: str, target: str) -> str:
    """Return the bundle's file name for a model and a target: ``resnet18-host.kiln``."""
    path, _, factory = model.rpartition(":")
    stem = factory if path else Path(model).stem
    words = f"{stem}-{Path(target).stem if target.endswith(('.yaml', '.yml')) else target}"
    return re.sub(r"[^\w.+-]+", "_", words) + ".kiln"
