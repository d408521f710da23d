"""Options that more than one verb takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelText = Annotated[
    str, typer.Argument(help="package.module:factory, or a .pt2, .onnx, TorchScript or .kq file.")
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        help="An input where the model declares none: NAME=1x3x224x224:float32; a letter such as N for "
        "a dimension that may vary.",
    ),
]
Check = Annotated[
    bool, typer.Option("--check/--no-check", help="Compare the result with the original on random inputs.")
]
Seed = Annotated[int, typer.Option(help="Seed of those inputs.")]
State = Annotated[
    str,
    typer.Option(help="A model that changes its buffers: refuse it, or make its state explicit inputs."),
]
Calibrate = Annotated[
    str | None,
    typer.Option(
        "--calibrate",
        help="Data like what the model will see, to quantize with: a .npz file with an array for each "
        "input, a folder of images, or module:function that yields inputs.",
    ),
]
Transform = Annotated[
    str | None,
    typer.Option(
        help="What becomes of the images in the folder: "
        "resize=256,crop=224,mean=0.485:0.456:0.406,std=0.229:0.224:0.225."
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        help="How much lower the score may be than in float; sensitive layers stay in float until it is.",
    ),
]
Evaluate = Annotated[
    str | None,
    typer.Option(
        help="module:function that gives the score, higher is better, of a function from inputs to "
        "outputs; by default the agreement with float on the data, in percent."
    ),
]
Statistics = Annotated[
    Path | None,
    typer.Option(
        help="A file (.npz) of what was observed on the data: read if it is there, otherwise written."
    ),
]
Report = Annotated[
    Path | None, typer.Option(help="Write a page about the quantization to this file (.html).")
]

Logs = Annotated[
    Path | None,
    typer.Option("--logs", help="A tuning log, or a folder of them, beside the shipped ones and your own."),
]
