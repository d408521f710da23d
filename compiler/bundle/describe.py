"""What the stages know, as the plain data that a manifest holds."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import sys
from collections.abc import Iterable
from typing import Any

from compiler.bundle.manifest import (
    FORMAT,
    AotInfo,
    CheckInfo,
    Golden,
    KernelInfo,
    Manifest,
    PassInfo,
    QuantizationInfo,
    TargetInfo,
)
from compiler.support.signature import Signature
from compiler.target import Target, required_features


def describe_target(target: Target) -> TargetInfo:
    """Return what a bundle says about its target."""
    descriptor = json.loads(json.dumps(dataclasses.asdict(target), default=dict))
    # How to log in to someone's board is no business of whoever gets the bundle.
    descriptor.pop("board", None)
    return TargetInfo(
        name=target.name,
        kind=target.kind,
        triple=target.triple,
        cpu=target.cpu,
        features=required_features(target),
        arch=target.accelerator.arch if target.accelerator else None,
        cores=target.cores,
        descriptor=descriptor,
    )


def describe(
    origin: str,
    signature: Signature,
    target: Target,
    *,
    passes: Iterable[Any],
    kernels: Iterable[Any],
    threads: int | None,
    alignment: int,
    check: CheckInfo | None,
    golden: Golden | None,
    notes: Iterable[str],
    quantization: QuantizationInfo | None = None,
    aot: AotInfo | None = None,
) -> Manifest:
    """Return the manifest of a model, but for its parts.

    `passes` have a name, seconds and a summary; `kernels` a kernel, its rule, flops, bytes and origin.
    """
    kiln, tvm, torch = installed_versions()
    return Manifest(
        format=FORMAT,
        kiln=kiln,
        tvm=tvm,
        torch=torch,
        model=origin,
        signature=signature,
        target=describe_target(target),
        threads=threads,
        alignment=alignment,
        passes=tuple(PassInfo(name=p.name, seconds=round(p.seconds, 3), summary=p.summary) for p in passes),
        kernels={
            k.kernel: KernelInfo(rule=k.rule, flops=k.flops, bytes=k.bytes, origin=k.origin) for k in kernels
        },
        check=check,
        golden=golden,
        notes=tuple(dict.fromkeys(notes)),
        parts={},
        quantization=quantization,
        aot=aot,
    )


def installed_versions() -> tuple[str, str, str | None]:
    """Return the versions of Kiln and TVM, and torch's if it is loaded."""
    from compiler import __version__

    torch = importlib.metadata.version("torch") if "torch" in sys.modules else None
    return __version__, importlib.metadata.version("apache-tvm"), torch
