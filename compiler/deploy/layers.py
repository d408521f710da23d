"""What each kernel of an ahead-of-time library makes, here or on a board, beside what it should be."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compiler.bundle import AotInfo, Bundle
from compiler.bundle.arrays import from_npy, to_npy
from compiler.deploy.aot import AotModel
from compiler.deploy.install import install, model_folder, runner_of
from compiler.deploy.remote import Place, connected
from compiler.deploy.session import extract
from compiler.deploy.verification import relative_error
from compiler.support.files import private_folder

Values = dict[int, np.ndarray]
"""By the number of a step, the tensor that it makes; the first of several."""


@dataclass(frozen=True)
class LayerDifference:
    """A layer of the model compared: `step` of the library makes it.

    `error` is relative to the range of the wanted values; None where both cannot be compared, for which `why`
    gives the reason. `levels` tells that the library has integers there: compared is what they stand for;
    where the bundle does not say that, by the scale and zero point that fit best.
    """

    step: int
    kernel: str
    layer: str
    error: float | None
    levels: bool = False
    why: str = ""


def compared_steps(aot: AotInfo) -> dict[int, str]:
    """Return the steps whose results are values of the model: by number, the node of its graph.

    What prepares a layer has its name, too; the last step of a name makes its value.
    """
    last = {step.node: number for number, step in enumerate(aot.steps) if step.node}
    return {number: node for node, number in last.items()}


def values_here(bundle: Bundle, aot: AotInfo, inputs: Sequence[np.ndarray]) -> Values:
    """Run a bundle here and return what its steps make.

    Raises:
        BundleError: it cannot run here.
    """
    found: Values = {}
    with private_folder() as folder, AotModel(extract(bundle, folder)) as model:
        model.run(inputs, lambda step, made: found.update({step: made[0].copy()}))
    return found


def values_there(bundle: Bundle, aot: AotInfo, inputs: Sequence[np.ndarray], place: Place) -> Values:
    """Deploy a bundle to a board, run it there on `inputs` and return what its steps make.

    Raises:
        BundleError: it does not run there as it should.
        UsageError: the board cannot be reached or used.
    """
    install(bundle.path, place, runs=0)
    home, runner = model_folder(place, aot.name), runner_of(bundle, aot)
    with private_folder() as folder, connected(place) as remote:
        files = {f"input_{i}.npy": folder / f"input_{i}.npy" for i in range(len(inputs))}
        for array, path in zip(inputs, files.values(), strict=True):
            path.write_bytes(to_npy(array))
        there = remote.must("mktemp -d", "make a folder").strip()
        try:
            remote.send(files, there)
            words = " ".join(shlex.quote(f"{there}/{name}") for name in files)
            made = f"{there}/made"
            script = f"mkdir {made} && cd {home}/current && ./{runner} --trace {made} --input {words}"
            remote.must(script, "run the bundle")
            (folder / "made").mkdir()
            remote.fetch(made, folder / "made")
        finally:
            remote.run(f"rm -rf {shlex.quote(there)}")
        read = {
            number: (folder / "made" / f"{number}_0.npy").read_bytes() for number in range(len(aot.steps))
        }
    return {
        number: from_npy(read[number], step.outputs[0][1], step.kernel)
        for number, step in enumerate(aot.steps)
    }


def differences(aot: AotInfo, values: Values, wanted: Mapping[str, np.ndarray]) -> list[LayerDifference]:
    """Compare what the steps make with the values of the model's nodes."""
    found = []
    for number, node in sorted(compared_steps(aot).items()):
        step, want = aot.steps[number], wanted.get(node)
        if want is None:
            continue
        got = as_shaped(values[number], want.shape)
        if got is None:
            why = f"{_shape(values[number])} for {_shape(want)}"
            found.append(LayerDifference(number, step.kernel, step.layer, None, why=why))
            continue
        levels = got.dtype.kind in "iu" and want.dtype.kind == "f"
        if levels:
            got = _fitted(got, want) if step.levels is None else step.levels.real(got)
        else:
            got = got.astype(want.dtype)
        found.append(LayerDifference(number, step.kernel, step.layer, relative_error(got, want), levels))
    return found


def as_shaped(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return a kernel's tensor in the model's `shape`, None if it is no arrangement of that.

    Kernels have channels in blocks, (N, C / lanes, ..., lanes) for (N, C, ...), the last block filled up.
    """
    if value.shape == shape:
        return value
    if value.ndim == len(shape) + 1 and value.ndim >= 3:
        moved = np.moveaxis(value, -1, 2)
        flat = moved.reshape(moved.shape[0], -1, *moved.shape[3:])
        filled_up = 0 <= flat.shape[1] - shape[1] < value.shape[-1]
        if filled_up and (flat.shape[0], *flat.shape[2:]) == (shape[0], *shape[2:]):
            return flat[:, : shape[1]]
    return value.reshape(shape) if value.size == int(np.prod(shape)) else None


def _fitted(levels: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Return what integers stand for: scaled and shifted so that they are nearest to `want`."""
    flat, goal = levels.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    spread = flat - flat.mean()
    power = float(spread @ spread)
    scale = float(spread @ (goal - goal.mean())) / power if power else 0.0
    fitted: np.ndarray = (goal.mean() + scale * (levels - flat.mean())).astype(want.dtype)
    return fitted


def _shape(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape)) or "scalar"
