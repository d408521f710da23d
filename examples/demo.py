"""A pretrained network on two pictures, in PyTorch and in Kiln: the same answers, and how long each takes.

make demo
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from examples.efficientnet_lite0 import model, preprocess, top_labels

PICTURES = {"chelsea": "a cat", "coffee": "a cup of coffee"}
"""Names in skimage.data, and what they show."""


def main() -> int:
    """Compile, load, run and compare; return 0 if both say the same."""
    import skimage.data
    import torch

    import compiler
    from compiler.cli.console import Console
    from compiler.support.progress import watching

    print("compiling EfficientNet-Lite0 (ImageNet weights) for this machine")
    network, examples = model()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "efficientnet_lite0.kiln"
        with Console(sys.stderr) as console, watching(console):
            compiler.compile(network, examples, target="host", output=bundle)
        print(f"the bundle has {bundle.stat().st_size / 1e6:.1f} MB\n")
        session = compiler.load(bundle)
    torch.set_num_threads(session.threads)

    def in_pytorch(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(pixels)))

    agree = True
    for name, shows in PICTURES.items():
        pixels = preprocess(getattr(skimage.data, name)())
        runners: dict[str, Callable[[np.ndarray], Any]] = {"PyTorch": in_pytorch, "Kiln": session}
        answers = {title: np.asarray(run(pixels)) for title, run in runners.items()}
        times = latencies(runners, pixels)
        print(f"{name} ({shows})")
        for title, logits in answers.items():
            labels = ", ".join(f"{word} {probability:.1%}" for word, probability in top_labels(logits))
            print(f"  {title:<8} {labels:<62} {times[title]:6.2f} ms")
        logits, expected = answers["Kiln"], answers["PyTorch"]
        error = np.abs(logits - expected).max()
        print(f"  largest difference {error:.0e} on a range of {np.ptp(expected):.0f}\n")
        agree &= top_labels(logits)[0][0] == top_labels(expected)[0][0]
    print(f"{session.threads} threads, medians; `kiln bench` compares with more runtimes")
    return 0 if agree else 1


def latencies(runners: dict[str, Callable[[np.ndarray], Any]], pixels: np.ndarray) -> dict[str, float]:
    """Return the median time of a run in milliseconds; the runners take turns, in five rounds of ten."""
    times: dict[str, list[float]] = {title: [] for title in runners}
    for _ in range(5):
        for title, run in runners.items():
            run(pixels)  # the other's threads have just been busy
            time.sleep(0.05)
            for turn in range(12):
                start = time.perf_counter()
                run(pixels)
                if turn >= 2:
                    times[title].append((time.perf_counter() - start) * 1e3)
    return {title: statistics.median(each) for title, each in times.items()}


if __name__ == "__main__":
    sys.exit(main())
