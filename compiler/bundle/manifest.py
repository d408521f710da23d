"""The manifest of a bundle: everything that is known about a compiled model, as plain data.

Written as JSON by the compiler, read back where neither TVM nor torch needs to exist. `FORMAT` counts up
when an older Kiln could misread what a newer one wrote.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from compiler.support.errors import BundleError
from compiler.support.signature import Levels, Signature

FORMAT = 2
"""The format that this Kiln writes, and the newest that it reads."""

LIBRARY = "model.so"
"""The part that holds a model compiled for TVM's virtual machine."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file inside the bundle: `sha256` in hexadecimal and `size` in bytes, both of the plain contents."""

    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class TargetInfo:
    """What the library was compiled for.

    `name` is the descriptor's name; `kind` is cpu, cuda, opencl or metal; `triple` and `cpu` are LLVM's
    names; `features` are the CPU features that a machine must have to run the library. `arch` is what
    code for the accelerator was made for (``sm_87``), None on a CPU. `cores` counts physical cores.
    `descriptor` holds the whole descriptor as it was at compile time.
    """

    name: str
    kind: str
    triple: str
    cpu: str
    features: tuple[str, ...]
    arch: str | None = None
    cores: int = 1
    descriptor: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PassInfo:
    """What one pass did: wall time in `seconds` and a sentence."""

    name: str
    seconds: float
    summary: str


@dataclass(frozen=True, kw_only=True)
class KernelInfo:
    """How a kernel was made: the schedule `rule`, and what one call of it has to do.

    `flops` counts operations (a multiply and an add are two), `bytes` what its inputs and outputs weigh;
    None where a shape is symbolic or the operations cannot be counted. `origin` says whether the schedule was
    ``tuned`` (taken from a log), is the rule's ``default``, or ``generic``, where no rule knew the kernel.
    """

    rule: str
    flops: float | None
    bytes: int | None
    origin: str = "default"


@dataclass(frozen=True, kw_only=True)
class CheckInfo:
    """How the compiled model was compared with the original at compile time.

    `ran` says what was run: ``library`` (the one in this bundle) or ``host build`` (the same model built
    for the compiling machine, because the target's code does not run there). `error` is the greatest
    absolute difference divided by the range of the output it occurs in, `tolerance` what was allowed,
    `summary` a sentence about the output that is furthest off. A quantized model is compared with itself
    computed in float: `error` is a root mean square then, a part of the output's, and `tolerance` what
    quantization changed.
    """

    ran: str
    error: float
    tolerance: float
    summary: str


@dataclass(frozen=True, kw_only=True)
class QuantizationInfo:
    """How the model was quantized; the part ``quantization.json`` holds the whole report.

    `scheme` and `method` as `compiler.compress` names them; `data` names the calibration data, `sha256` is
    over its arrays, `batches` counts the runs, `is_random` tells that there was no data. `quantized` of
    `layers` layers are quantized. `summary` holds sentences: what stays in float and why, how near the
    outputs are to those in float, and warnings.
    """

    scheme: str
    method: str
    data: str
    sha256: str
    batches: int
    is_random: bool
    layers: int
    quantized: int
    summary: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Inputs and the outputs they give, in signature order, by the names of their parts (``.npy``).

    `source` says who computed the outputs: ``reference`` (the original model) or ``library``.
    `tolerance` bounds the difference, as a fraction of each output's range, with which a device passes.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    source: str
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class StepInfo:
    """A call of a kernel in an ahead-of-time library.

    `layer` is what its result is in the user's model (``layer1.0.conv1 conv2d``), `node` the name of that in
    the graph; both are empty if not known. `outputs` are shapes and dtypes of what it makes, `arena` counts
    the bytes of the arena that are in use meanwhile. `levels` tells what the first output stands for, where
    it is quantized and that is known.
    """

    kernel: str
    node: str
    layer: str
    outputs: tuple[tuple[tuple[int, ...], str], ...]
    arena: int
    levels: Levels | None = None


@dataclass(frozen=True, kw_only=True)
class AotInfo:
    """An ahead-of-time library: needs nothing but the C library.

    `name` is the prefix of its names in C. `header`, `library`, `archive`, `runner` and `weights` are names
    of parts, and `c` those of C where nothing was compiled, so that there are only header and `c`. `weights`
    is None, too, where the weights are inside of what else there is. In bytes: the arena and the least that
    any plan of it takes, scratch memory for each thread but the first, weights, and code. `steps` are in
    order.
    """

    name: str
    header: str
    library: str | None
    archive: str | None
    runner: str | None
    weights: str | None
    c: tuple[str, ...]
    arena_bytes: int
    arena_least: int
    scratch_bytes: int
    weight_bytes: int
    code_bytes: int
    steps: tuple[StepInfo, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The names of its parts."""
        every = (self.library, self.archive, self.header, self.runner, self.weights, *self.c)
        return tuple(name for name in every if name is not None)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A compiled model.

    format: version of the bundle's format, `FORMAT`.
    kiln, tvm, torch: versions that compiled it; torch is None where none was used.
    model: where the model came from, as the user named it.
    signature: names, shapes and dtypes of inputs and outputs.
    target: what it was compiled for.
    threads: how many threads to run it on; None means one per physical core of the machine.
    alignment: bytes to which the address of every input must be aligned.
    passes: what each pass did, in order.
    kernels: the schedule rule of each kernel, and what it has to do.
    check: the comparison with the original; None if it was skipped.
    golden: stored inputs and outputs; None if there are none.
    quantization: how the model was quantized; None if it was not.
    aot: the ahead-of-time library; None where the library is one for TVM's virtual machine.
    notes: sentences for the reader, such as what was not run at compile time.
    parts: every other file of the bundle by its name.
    """

    format: int
    kiln: str
    tvm: str
    torch: str | None
    model: str
    signature: Signature
    target: TargetInfo
    threads: int | None
    alignment: int
    passes: tuple[PassInfo, ...]
    kernels: dict[str, KernelInfo]
    check: CheckInfo | None
    golden: Golden | None
    notes: tuple[str, ...]
    parts: dict[str, Part]
    quantization: QuantizationInfo | None = None
    aot: AotInfo | None = None


def to_json(manifest: Manifest) -> str:
    """Return the manifest as JSON, the same text for equal manifests."""
    return json.dumps(dataclasses.asdict(manifest), indent=1, sort_keys=True, allow_nan=False) + "\n"


def from_json(text: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        BundleError: it is no JSON, was written by a newer Kiln, or a field is missing or wrong.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        data = json.loads(text.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"manifest.json is not readable as JSON ({error})") from error
    _check_format(data)
    # strict: JSON has the types of the dataclasses but for tuples, which it writes as lists.
    try:
        manifest = TypeAdapter(Manifest).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "manifest"
        raise BundleError(f"manifest.json: {where}: {first['msg']}") from error
    except RecursionError as error:
        raise BundleError("manifest.json is nested too deeply") from error
    _check_meaning(manifest)
    return manifest


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _check_format(data: Any) -> None:
    version = data.get("format") if isinstance(data, Mapping) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BundleError(f"manifest.json: expected a format version from 1 on, got {version!r}")
    if version > FORMAT:
        raise BundleError(
            f"it has format {version}, made by Kiln {data.get('kiln', '(unknown)')}, and this Kiln reads "
            f"formats up to {FORMAT}: upgrade Kiln (pip install -U kiln-compiler)"
        )


def _check_meaning(manifest: Manifest) -> None:
    """Check what types cannot say."""
    signature, golden = manifest.signature, manifest.golden
    for spec in (*signature.inputs, *signature.outputs):
        _dtype_known(spec.dtype, spec.name)
        if any(isinstance(dim, int) and dim < 0 for dim in spec.shape):
            raise BundleError(f"manifest.json: tensor '{spec.name}' has a negative extent")
    if len({spec.name for spec in signature.inputs}) != len(signature.inputs):
        raise BundleError("manifest.json: two inputs have the same name")
    if _leaves(signature.output_tree) != len(signature.outputs):
        raise BundleError("manifest.json: output_tree does not have one place for each output")
    if manifest.alignment < 1 or (manifest.threads is not None and manifest.threads < 1):
        raise BundleError("manifest.json: alignment and threads must be at least 1")
    libraries = manifest.aot.files if manifest.aot else (LIBRARY,)
    if manifest.aot and manifest.target.kind != "cpu":
        raise BundleError(f"manifest.json: an ahead-of-time library cannot be for {manifest.target.kind}")
    if any("/" in name for name in libraries):
        raise BundleError("manifest.json: a library's name has a folder")
    wanted = {*libraries, *(golden.inputs if golden else ()), *(golden.outputs if golden else ())}
    if missing := sorted(wanted - set(manifest.parts)):
        raise BundleError(f"manifest.json: '{missing[0]}' is not among the parts")
    lengths = (len(signature.inputs), len(signature.outputs))
    if golden and (len(golden.inputs), len(golden.outputs)) != lengths:
        raise BundleError("manifest.json: golden data does not fit the signature")


def _dtype_known(name: str, tensor: str) -> None:
    from compiler.support.dtypes import numpy_dtype

    try:
        numpy_dtype(name)
    except TypeError as error:
        raise BundleError(f"manifest.json: tensor '{tensor}' has the unknown dtype '{name}'") from error


def _leaves(tree: Any) -> int:
    """Count the tensors of a `Signature.output_tree`; -1 for one that is not well formed."""
    if tree == "*":
        return 1
    if tree is None or (isinstance(tree, dict) and set(tree) == {"value"}):
        return 0
    if isinstance(tree, dict) and len(tree) == 1:
        items = tree.get("tuple", tree.get("dict"))
        children = list(items.values()) if isinstance(items, dict) else items
    else:
        children = tree
    if not isinstance(children, list):
        return -1
    counts = [_leaves(child) for child in children]
    return -1 if -1 in counts else sum(counts)
